"""The display of a running `fit`: tqdm where installed, else one line on stderr."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

PERIOD = 0.1  # seconds between updates: what an eye can follow


class Display(Protocol):
    """Shows how far training has come."""

    def show(self, epoch: int, logs: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def open_display(epochs: int, progress: bool | None) -> Display | None:
    """A display for `epochs` epochs, or None where it is to be silent.

    progress: True shows it anywhere, False nowhere, None on a terminal only."""
    if progress is False or (progress is None and not (sys.stderr and sys.stderr.isatty())):
        return None
    try:
        from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return _Line(epochs)
    return _Bar(tqdm(total=epochs, unit="epoch", mininterval=PERIOD))


def _shown(logs: Mapping[str, float]) -> dict[str, str]:
    return {key: f"{value:.4f}" for key, value in logs.items()}


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, epoch: int, logs: Mapping[str, float]) -> None:
        self._bar.set_postfix(_shown(logs), refresh=False)
        self._bar.update(epoch - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Line:
    """A line that rewrites itself on a terminal; elsewhere one line at the end."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._start = time.perf_counter()
        self._shown_at = 0.0
        self._text = ""

    def show(self, epoch: int, logs: Mapping[str, float]) -> None:
        now = time.perf_counter()
        values = "  ".join(f"{key} {value}" for key, value in _shown(logs).items())
        text = f"epoch {epoch}/{self._epochs}  {values}  {now - self._start:.1f} s"
        padding = " " * (len(self._text) - len(text))
        self._text = text
        if sys.stderr.isatty() and (now - self._shown_at >= PERIOD or epoch == self._epochs):
            self._shown_at = now
            print(f"\r{text}{padding}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._text:
            print(("\r" if sys.stderr.isatty() else "") + self._text, file=sys.stderr)
