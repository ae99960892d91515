"""Branches side by side."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..arrays import Shape, shown
from ..errors import ShapeError
from .base import Layer
from .container import Branches, Chain

if TYPE_CHECKING:
    from ..lowering import Builder


class Concat(Branches):
    """h = (f_0(x), f_1(x), ...), what the branches make of the same x side by side along the last axis, the
    channels: (N, H, W, C_0), (N, H, W, C_1), ... -> (N, H, W, C_0 + C_1 + ...), and likewise for samples of
    any other shape.

        gm.Concat(
            gm.Conv2d(64, 32, 1, "relu"),
            [gm.Conv2d(64, 48, 1, "relu"), gm.Conv2d(48, 64, 3, "relu", padding=1)],
            [gm.MaxPool2d(3, stride=1, padding=1), gm.Conv2d(64, 32, 1, "relu")],
        )

    branches: each a layer, a list of layers one after the other, or None for x itself. The parameters of
        branch 1 are called "1.0.weight" and so on.

    ValueError for no branch, ShapeError where the branches' shapes differ in more than the channels. Szegedy
    et al. 2015.
    """

    def __init__(self, *branches: Layer | Iterable[Layer] | None, name: str | None = None) -> None:
        if not branches:
            raise ValueError("Concat: it needs at least one branch")
        self._count = len(branches)
        self._chains = {
            str(index): Chain([branch] if isinstance(branch, Layer) else branch, f"Concat: branch {index}")
            for index, branch in enumerate(branches)
            if branch is not None
        }
        self.name = name

    def output_shape(self, input_shape: Shape) -> Shape:
        first, channels = None, 0
        for index in range(self._count):
            chain = self._chains.get(str(index))
            shape = input_shape if chain is None else chain.output_shape(input_shape)
            first = first or shape
            if shape[:-1] != first[:-1]:
                raise ShapeError(
                    f"concat: of {shown(input_shape)} branch 0 makes {shown(first)}, branch {index} "
                    f"{shown(shape)}; only the channels may differ"
                )
            channels += shape[-1]
        assert first is not None
        return *first[:-1], channels

    def output_activation(self) -> str | None:
        """That of all branches; a softmax would have been over the channels of one."""
        names = {chain.output_activation() for chain in self._chains.values()}
        common = names.pop() if len(names) == 1 and len(self._chains) == self._count else None
        return None if common == "softmax" else common

    def lower(self, builder: "Builder", value: int, name: str) -> int:
        made = dict(zip(self._chains, self._lowered(builder, value, name), strict=True))
        values = [made.get(str(index), value) for index in range(self._count)]
        return builder.graph.concat(values, f"{name}.h")

    @classmethod
    def _from_chains(cls, chains: dict[str, list[Layer]], config: dict[str, Any]) -> "Concat":
        unchanged = {str(int(index)) for index in config.pop("unchanged")}
        order = [str(index) for index in range(len(chains) + len(unchanged))]
        if set(order) != unchanged | set(chains):
            raise ValueError(f"Concat: branches are called {', '.join([*chains, *unchanged])}")
        return cls(*(chains.get(index) for index in order), **config)

    def config(self) -> dict[str, Any]:
        return {"unchanged": [index for index in range(self._count) if str(index) not in self._chains]}

    def _arguments(self) -> str:
        parts = []
        for index in range(self._count):
            chain = self._chains.get(str(index))
            layers = [None] if chain is None else list(chain._layers)
            parts.append(repr(layers[0] if len(layers) == 1 else layers))
        return ", ".join(parts + ([self.short_arguments()] if self.name else []))

    def short_arguments(self) -> str:
        """Those that are no layers."""
        return f"name={self.name!r}" if self.name else ""
