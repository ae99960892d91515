"""Running a network: predict, forward and backward by hand, trace."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import _bytes, _core, _layout, _sources, building, ops
from .arrays import Array, Shape, any_array, as_array, empty, is_plain, is_table, real_array, shown
from .errors import ShapeError
from .programs import CHUNK

if TYPE_CHECKING:
    from .network import Network


class LastForward(NamedTuple):
    """What a backward by hand belongs to."""

    tape: _core.Tape
    input_shape: Shape  # with the batch, channels-last
    output_shape: Shape  # as returned, without the batch for one sample
    single: bool  # whether it was one


def _real_batch(network: "Network", X: ArrayLike, what: str, keep_bytes: bool) -> Array:
    """What a user gives as a batch or one sample, channels-last, C-contiguous, of the network's type or
    bytes."""
    if is_table(X):
        from . import tables

        X = tables.inputs_of(network, X, what)
    x = bytes_or_reals(network, _layout.entering(network, X, what), what)
    if keep_bytes or not _bytes.is_bytes(x):
        return x
    return _bytes.to_reals(x, _bytes.scale_of(network), network._dtype)


def bytes_or_reals(network: "Network", X: ArrayLike, what: str) -> Array:
    """A C-contiguous array of uint8 where X is one, else of the network's type."""
    if _bytes.is_bytes(X):
        return np.require(X, requirements=("C", "A")).view(np.ndarray)
    return real_array(X, network._dtype, what)


def batch_of(
    network: "Network", X: ArrayLike, what: str = "X", *, keep_bytes: bool = False
) -> tuple[Array, bool]:
    """(batch, whether X was one sample); builds the network where this is its first data.

    The batch is of the network's type, bytes scaled, unless `keep_bytes`, and channels-last.

    ShapeError where X does not fit or is empty."""
    x: Array
    if is_plain(X, network._dtype) and network._layout == "channels_last":  # nearly always
        x = X  # type: ignore[assignment]
    else:
        x = _real_batch(network, X, what, keep_bytes)
    shape = network._built_shape
    if shape is None or network._stage != "built":
        shape = network._inner_shape
        if x.ndim == 0:
            raise ShapeError(f"{what} is a single number; expected a batch (N, ...)")
        shape = shape or (x.shape[1:] if x.ndim > 1 else x.shape)
        if 0 in x.shape:
            raise ShapeError(f"{what} of shape {x.shape} is empty")
        if x.shape[1:] == shape or x.shape == shape:
            building.build(network, shape)
    if x.shape[1:] == shape:
        if len(x) == 0:
            raise ShapeError(f"{what} of shape {x.shape} holds no samples")
        return x, False
    if x.shape == shape:
        return x.reshape(1, *shape), True
    if x.ndim == len(shape) + 1:
        network.output_shape(x.shape[1:])  # the layer's own message, where it objects
    raise ShapeError(f"network: {what} has shape {x.shape}; it takes {shown(shape)}, or one sample {shape}")


def predict(network: "Network", X: ArrayLike) -> Array:
    """See `Network.predict`."""
    if _sources.must_stream(X, network._dtype, network._layout):
        return _by_blocks(network, X)
    return _predict(network, X)


def _predict(network: "Network", X: ArrayLike) -> Array:
    x, single = batch_of(network, X, keep_bytes=True)
    out = _layout.leaving(network, outputs(network, x))
    return out[0] if single else out


def outputs(network: "Network", x: Array) -> Array:
    """Those of a batch as `batch_of` gives it, channels-last."""
    out = empty((len(x), *network._output_dims), network._dtype)
    predictor = network._programs.predictor(network)
    if x.dtype == out.dtype:
        predictor.run(x, out)
    else:
        for part, piece in _bytes.chunks(x, _bytes.scale_of(network), network._dtype, CHUNK):
            predictor.run(piece, out[part])
    return out


def _by_blocks(network: "Network", X: Any) -> Array:
    """The outputs for what can be sliced, read some rows at a time."""
    first = _predict(network, as_array(X[0:1], "X"))
    rows = max(1, _sources.BLOCK // (max(1, math.prod(network.built_input_shape)) * first.itemsize))
    out = np.empty((_sources.length(X), *first.shape[1:]), first.dtype)
    for begin in range(0, len(out), rows):
        out[begin : begin + rows] = _predict(network, as_array(X[begin : begin + rows], "X"))
    return out


def predict_proba(network: "Network", X: ArrayLike) -> Array:
    """See `Network.predict_proba`."""
    output = network.output_activation()
    kind = None if network.loss is None else network.loss.kind(output)
    if kind in ("cross_entropy", "kl_divergence"):
        return _softmax(network, predict(network, X))
    if kind == "bce_with_logits":
        return ops.activation(predict(network, X), "sigmoid")
    probabilities = ("bce", "cross_entropy_probabilities", "kl_divergence_probabilities")
    if kind in probabilities or output in ("softmax", "sigmoid"):
        return predict(network, X)
    if kind is None:
        raise ValueError(
            "predict_proba: the loss is not known, so neither is its link: fit first, or set net.loss to "
            "'cross_entropy' or another"
        )
    raise ValueError(f"predict_proba: a network trained with {kind} does not give probabilities")


def _softmax(network: "Network", output: Array) -> Array:
    """Over the channels of a batch's or one sample's output."""
    if network._layout == "channels_last":
        return ops.softmax(output)
    axis = output.ndim - len(network.output_dims)
    return np.moveaxis(ops.softmax(np.moveaxis(output, axis, -1)), -1, axis)


def forward(network: "Network", X: ArrayLike, training: bool) -> Array:
    """See `Network.forward`."""
    x, single = batch_of(network, X)
    out = empty((len(x), *network.output_dims), x.dtype)
    with _turn(network, "forward"):
        network._last = None
        tape = network._programs.tape(network, training, len(x))
        tape.forward(x, out, network._key, network._step)
        if training:
            network._step += 1
        result = _layout.leaving(network, out)
        result = result[0] if single else result
        network._last = LastForward(tape, x.shape, result.shape, single)
    return result


def backward(network: "Network", dy: ArrayLike) -> Array:
    """See `Network.backward`."""
    with _turn(network, "backward"):
        last = network._last
        if last is None:
            raise RuntimeError("backward: there is no forward to go back through; call net.forward(X) first")
        dout = any_array(dy, "dy")
        if dout.shape != last.output_shape:
            raise ShapeError(f"backward: dy has shape {dout.shape}, forward returned {last.output_shape}")
        dout = _layout.batch_entering(network, dout[None] if last.single else dout, "dy")
        dx = empty(last.input_shape, network.dtype)
        last.tape.backward(real_array(dout, network.dtype, "dy"), dx)
    dx = _layout.leaving(network, dx)
    return dx[0] if last.single else dx


@contextmanager
def _turn(network: "Network", what: str) -> Iterator[None]:
    """One thread at a time. RuntimeError for a layer that calls its own network: it would wait for ever."""
    with network._lock:
        if network._running:
            raise RuntimeError(f"{what}: called from inside the same network's forward or backward")
        network._running = True
        try:
            yield
        finally:
            network._running = False


def trace(network: "Network", X: ArrayLike) -> dict[str, Array]:
    """See `Network.trace`."""
    x, single = batch_of(network, X)
    tracer = network._programs.tracer(network)
    wanted = sorted(set(tracer.values.values()))
    arrays = dict(zip(wanted, _core.trace(tracer.graph, wanted, x), strict=True))
    arrays = {value: _layout.leaving(network, array) for value, array in arrays.items()}
    return {name: arrays[value][0] if single else arrays[value] for name, value in tracer.values.items()}
