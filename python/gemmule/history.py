"""What training recorded."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class History(Mapping[str, list[float]]):
    """Losses and metrics by epoch: `history["loss"]`, `history["val_accuracy"]` are lists, one entry an
    epoch.

    Keys: "loss", the metrics asked for, and with validation data each again with "val_" before it."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._values: dict[str, list[float]] = {key: [] for key in keys}
        self.seconds = 0.0  # wall time of training and validation

    @property
    def epochs(self) -> int:
        """Epochs finished."""
        return len(self._values["loss"])

    @property
    def loss(self) -> list[float]:
        """The training loss of each epoch."""
        return self._values["loss"]

    def plot(self, ax: Any = None) -> "Axes":
        """Draw loss and metrics over epochs with matplotlib; returns the Axes."""
        from . import plot

        return plot.history(self, ax)

    def _restore(self, values: Mapping[str, list[float]], seconds: float) -> None:
        """What a checkpoint holds."""
        self._values = {key: list(values[key]) for key in self._values}
        self.seconds = seconds

    def _append(self, row: Mapping[str, float]) -> None:
        for key, value in row.items():
            self._values[key].append(value)

    def __getitem__(self, key: str) -> list[float]:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        last = ", ".join(f"{key} {values[-1]:.4g}" for key, values in self._values.items() if values)
        return f"History({self.epochs} epochs in {self.seconds:.2f} s{': ' if last else ''}{last})"
