"""Where channels stand: last inside, `(N, H, W, C)`; first for those who say so, `(N, C, H, W)`.

What goes over is turned by a view; only who needs the elements in the other order copies them. Arrays of
fewer than three axes, batch included, are the same in both."""

from typing import TYPE_CHECKING, Any

from .arrays import Array, Shape, any_array, shown, unknown_name
from .errors import ShapeError

if TYPE_CHECKING:
    from .network import Network

LAYOUTS = ("channels_last", "channels_first")


def checked_layout(layout: Any, what: str) -> str:
    """One of the two names; ValueError for anything else."""
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise unknown_name(what, layout, LAYOUTS)
    return layout


def batch_to_last(array: Array) -> Array:
    """(N, C, ...) -> (N, ..., C), a view."""
    return array.transpose(0, *range(2, array.ndim), 1) if array.ndim > 2 else array


def batch_to_first(array: Array) -> Array:
    """(N, ..., C) -> (N, C, ...), a view."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1)) if array.ndim > 2 else array


def inside(network: "Network", shape: Shape) -> Shape:
    """A sample's shape as the layers see it."""
    return (*shape[1:], shape[0]) if network._layout == "channels_first" else shape


def outside(network: "Network", shape: Shape) -> Shape:
    """A sample's shape as the network's user sees it."""
    return (shape[-1], *shape[:-1]) if network._layout == "channels_first" else shape


def entering(network: "Network", X: Any, what: str) -> Any:
    """What a user gives as a batch or one sample, channels-last. ShapeError where the network is built and
    it does not fit."""
    if network._layout == "channels_last":
        return X
    array = any_array(X, what)
    shape = network._inner_shape
    if shape is None:
        return batch_to_last(array)
    due = outside(network, shape)
    if array.shape == due:
        return batch_to_last(array[None])[0]
    if array.shape[1:] != due or array.ndim == 0:
        raise ShapeError(
            f"network: {what} has shape {array.shape}; it takes {shown(due)}, or one sample {due}"
        )
    return batch_to_last(array)


def batch_entering(network: "Network", batch: Any, what: str) -> Any:
    """Targets, channels-last."""
    return batch if network._layout == "channels_last" else batch_to_last(any_array(batch, what))


def leaving(network: "Network", batch: Array) -> Array:
    """A batch that goes to the user."""
    return batch if network._layout == "channels_last" else batch_to_first(batch)
