"""Commands of the command line, run in this process."""

import re

import pytest

from gemmule import cli

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *argv: str, status: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a command that must end with `status`."""
    try:
        result = cli.main(argv)
    except SystemExit as error:
        result = int(error.code or 0)
    out, err = capsys.readouterr()
    assert result == status, out + err
    return out, err


def refused(capsys: Capture, *argv: str, status: int, match: str) -> None:
    """The command ends with `status` and one line on standard error that matches."""
    _, err = run(capsys, *argv, status=status)
    assert err.startswith("gemmule: error: ")
    assert err.count("\n") == 1
    assert re.search(match, err), err


def accuracy(text: str) -> float:
    found = re.search(r"accuracy ([\d.]+) %", text)
    assert found, text
    return float(found[1])
