"""What is derived from a network, compiled programs above all: made when first needed, dropped when the
structure changes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from . import _core
from ._precision import numerics
from .layers.base import Revision
from .losses import Loss
from .lowering import Builder
from .parameters import Segment

if TYPE_CHECKING:
    from .network import Network

Made = TypeVar("Made")

# Rows that predict and evaluate take at once, where their arena stays in the caches. Each chunk packs the
# weights again: four layers of 2048 take 0.89 of the time that chunks of 256 take, of 512 0.85 (two threads).
CHUNK = 1024


class Programs:
    """Keeps one thing of each use, the one asked for last."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._revision = -1
        self._signature: Any = None

    def segments(self, network: "Network") -> list[tuple[str, Segment, bool]]:
        """See `Network.segments`."""

        def make() -> list[tuple[str, Segment, bool]]:
            trainable: dict[int, bool] = {}
            for layer, on in network._leaves(True):
                for segment in layer._segments.values():
                    trained = on and not segment.is_state
                    trainable[id(segment)] = trainable.get(id(segment), False) or trained
            walk = network._walk("", True, set())
            return [(name, segment, trainable[id(segment)]) for name, segment, _ in walk]

        return self._kept_or_made(network, "segments", (), make)

    def predictor(self, network: "Network") -> _core.Predictor:
        """Forward without dropout."""

        def make() -> _core.Predictor:
            builder = Builder(network, training=False)
            return _core.Predictor(builder.graph, builder.output, CHUNK)

        return self._kept_or_made(network, "predictor", (), make)

    def tape(self, network: "Network", training: bool, rows: int) -> _core.Tape:
        """Forward and backward by hand, for at least `rows` rows."""
        use = f"tape, training={training}"
        kept = self._current(network).get(use)
        capacity = max(rows, kept[1].capacity) if kept else rows

        def make() -> _core.Tape:
            builder = Builder(network, training=training)
            return _core.Tape(builder.graph, builder.output, capacity)

        return self._kept_or_made(network, use, capacity, make)

    def tracer(self, network: "Network") -> Builder:
        """The graph of a forward pass with the names of its values."""
        return self._kept_or_made(network, "tracer", (), lambda: Builder(network, training=False))

    def evaluator(self, network: "Network", loss: Loss, metrics: tuple[str, ...]) -> _core.Evaluator:
        """Mean loss and metrics."""

        def make() -> _core.Evaluator:
            builder = Builder(network, training=False)
            lowered = loss.lower(builder.graph, builder.output, network.output_activation())
            return _core.Evaluator(builder.graph, builder.output, *lowered, metrics, CHUNK)

        return self._kept_or_made(network, "evaluator", (loss, metrics), make)

    def trainer(
        self,
        network: "Network",
        loss: Loss,
        metrics: tuple[str, ...],
        batch_size: int,
        precision: str | None,
        keeps_output: bool,
        accumulate: int,
    ) -> _core.Trainer:
        """The epoch loop."""

        def make() -> _core.Trainer:
            builder = Builder(network, training=True, fitting=True, precision=precision)
            lowered = loss.lower(builder.graph, builder.output, network.output_activation())
            return _core.Trainer(
                builder.graph, builder.output, *lowered, metrics, batch_size, keeps_output, accumulate
            )

        details = loss, metrics, batch_size, precision, keeps_output, accumulate
        return self._kept_or_made(network, "trainer", details, make)

    def _kept_or_made(self, network: "Network", use: str, details: Any, make: Callable[[], Made]) -> Made:
        kept = self._current(network)
        key = (details, _core.active_isa(), _core.forced_conv(), numerics())
        entry = kept.get(use)
        if entry is None or entry[0] != key:
            entry = kept[use] = (key, make())
        made: Made = entry[1]
        return made

    def _current(self, network: "Network") -> dict[str, tuple[Any, Any]]:
        """The programs that still fit the network."""
        revision = Revision.count  # read before the structure: what changes meanwhile is seen next time
        if self._revision != revision:
            signature = network._signature()
            if signature != self._signature:
                # A new dict: a caller in another thread may still be filling the old one.
                self._kept, self._signature = {}, signature
            self._revision = revision
        return self._kept
