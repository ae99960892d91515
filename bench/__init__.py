"""`python -m bench ...` from the checkout is `gemmule bench ...`; the code is `gemmule.bench`."""
