"""Networks as text and tables."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from . import _layout
from .arrays import Shape, shown
from .layers.container import Branches, Chain

if TYPE_CHECKING:
    from .network import Network

_TITLES = ("layer", "", "output", "parameters", "FLOPs")


class Row(NamedTuple):
    """One layer of the table; the numbers are None where the network is not built."""

    key: str
    layer: str
    output: str
    parameters: int | None
    flops: int | None


def rows(network: "Network") -> list[Row]:
    """A row for every layer, nested ones by path; what is shared is counted where it comes first."""
    shape = network.built_input_shape if network._stage == "built" else None
    return list(_rows(network, "", shape, set(), network))


def _rows(
    network: Chain, prefix: str, shape: Shape | None, seen: set[int], outermost: "Network"
) -> Iterator[Row]:
    for key, layer in zip(network._keys, network._layers, strict=True):
        if isinstance(layer, Chain):
            yield from _rows(layer, f"{prefix}{key}.", shape, seen, outermost)
            shape = None if shape is None else layer.output_shape(shape)
            continue
        label = repr(layer)
        if isinstance(layer, Branches):
            for name, chain in layer.chains():
                yield from _rows(chain, f"{prefix}{key}.{name}", shape, seen, outermost)
            label = f"{type(layer).__name__}({layer.short_arguments()})"
        label = label if layer.trainable else f"{label}, frozen"
        if shape is None:
            yield Row(prefix + key, label, "", None, None)
            continue
        flops = 0 if isinstance(layer, Branches) else layer.flops(shape)
        shape = layer.output_shape(shape)
        segments = [segment for _, segment, _ in layer._walk("", True, seen)]
        parameters = sum(segment.size for segment in segments if not segment.is_state)
        yield Row(prefix + key, label, shown(_layout.outside(outermost, shape)), parameters, flops)


def _totals(network: "Network") -> str:
    if network._stage != "built":
        return f"{network.dtype}, not built: the input's shape is not known yet"
    segments = [entry for entry in network.segments() if not entry[1].is_state]
    total = sum(segment.size for _, segment, _ in segments)
    frozen = sum(segment.size for _, segment, trainable in segments if not trainable)
    size = total * (4 if network.dtype == "float32" else 8)
    shape = _layout.outside(network, network.built_input_shape)
    text = f"input {shown(shape)}, {network.dtype}: {total:,} parameters ({_bytes(size)})"
    if frozen:
        text += f", {frozen:,} of them frozen"
    return f"{text}, {network.flops():,} FLOPs a sample"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _cells(row: Row) -> tuple[str, ...]:
    numbers = ("?" if number is None else f"{number:,}" for number in (row.parameters, row.flops))
    return (row.key, row.layer, row.output, *numbers)


def text(network: "Network") -> str:
    """The table of `Network.summary`. FLOPs: multiplications and additions of the matrix products, for one
    sample."""
    table = [_TITLES, *map(_cells, rows(network))]
    widths = [max(len(line[i]) for line in table) for i in range(len(_TITLES))]
    lines = []
    for cells in table:
        left = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:], rule, _totals(network)])


def html(network: "Network") -> str:
    """The same as a self-contained HTML table."""

    def line(cells: tuple[str, ...], tag: str) -> str:
        aligned = ("left", "left", "left", "right", "right")
        inner = "".join(
            f'<{tag} style="text-align: {align}">{escape(cell)}</{tag}>'
            for cell, align in zip(cells, aligned, strict=True)
        )
        return f"<tr>{inner}</tr>"

    body = "".join(line(_cells(row), "td") for row in rows(network))
    head = line(_TITLES, "th")
    caption = escape(_totals(network))
    return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"


def representation(network: "Network") -> str:
    """The `repr` of a network."""
    layers = [repr(layer).replace("\n", "\n  ") for layer in network.layers]
    options = "" if network.dtype == "float32" else f', dtype="{network.dtype}"'
    return "Network([\n" + "".join(f"  {layer},\n" for layer in layers) + f"]{options})"
