"""`python -m bench ...`: the same as `gemmule bench ...`."""

import sys

from gemmule.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
