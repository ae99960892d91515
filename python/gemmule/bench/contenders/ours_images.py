"""gemmule on images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import gemmule as gm
from gemmule import _core

from ..cnn_tasks import CnnTask, InferCnn, TrainCnn
from ..layer_tasks import Conv, Pool, on_lines
from ..networks import Convolution, Flatten, Layer, MaxPooling, Mean, Residual, Shape, shapes
from ..sample import Turn, repeated, timed
from . import ours, ours_norms

version = ours.version
norm = ours_norms.norm


def conv(task: Conv) -> Turn:
    gm.set_num_threads(task.threads)
    x, weight, dz = task.operands()
    stride, padding, dilation = [task.stride] * 2, [task.padding] * 4, [1, 1]
    if not task.backward:
        z = on_lines(np.full_like(dz, np.nan))
        options: dict[str, Any] = {
            "stride": task.stride,
            "padding": task.padding,
            "groups": task.groups,
            "out": z,
        }
        gm.ops.conv2d(x, weight, **options)
        task.check_forward(x, weight, z)
        return repeated(
            "conv2d(x, weight, **options)", conv2d=gm.ops.conv2d, x=x, weight=weight, options=options
        )
    dx = on_lines(np.full_like(x, np.nan)) if task.input_grad else None
    dweight = np.full_like(weight, np.nan)
    where = stride, padding, dilation, task.groups
    calls = ["weight_grad(x, dz, dweight, *where, strict)"]
    if task.input_grad:
        calls.insert(0, "input_grad(dz, weight, dx, *where, strict)")
    names: dict[str, Any] = {
        "input_grad": _core.conv2d_input_grad,
        "weight_grad": _core.conv2d_weight_grad,
        **{"x": x, "weight": weight, "dz": dz, "dx": dx, "dweight": dweight, "where": where},
        "strict": gm.numerics() == "strict",
    }
    turn = repeated("; ".join(calls), **names)  # it calls them once at least
    task.check_backward(x, weight, dz, dx, dweight)
    return turn


def pool(task: Pool) -> Turn:
    """Backward from the places that forward keeps in training."""
    gm.set_num_threads(task.threads)
    x, dy = task.operands()
    y, dx = (on_lines(np.full_like(like, np.nan)) for like in (dy, x))
    window = [task.kernel] * 2, [task.kernel] * 2, [0] * 4
    names: dict[str, Any] = {"x": x, "y": y, "dy": dy, "dx": dx, "window": window}
    if task.mode == "max":
        places = np.zeros(y.shape, np.uint8)
        forward, backward = "pool(x, y, places, *window)", "grad(dy, places, dx, *window)"
        names |= {"pool": _core.max_pool2d, "grad": _core.max_pool2d_backward, "places": places}
        _core.max_pool2d(x, y, places, *window)
    else:
        forward, backward = "pool(x, y, *window, True)", "grad(dy, dx, *window, True)"
        names |= {"pool": _core.avg_pool2d, "grad": _core.avg_pool2d_backward}
    turn = repeated(backward if task.backward else forward, **names)
    if task.backward:
        task.check_backward(x, dy, dx)
    else:
        task.check_forward(x, y)
    return turn


def train_cnn(task: TrainCnn) -> Turn:
    gm.set_num_threads(task.threads)
    x, y = task.data
    net = _network(task)
    optimizer = gm.SGD(task.lr)

    def call() -> float:
        history = net.fit(
            x,
            y,
            loss=task.loss,
            optimizer=optimizer,
            epochs=task.epochs,
            batch_size=task.batch,
            shuffle=task.shuffle,
            progress=False,
        )
        return float(history["loss"][-1])

    return timed(call)


def infer_cnn(task: InferCnn) -> Turn:
    gm.set_num_threads(task.threads)
    net = _network(task)
    (x,) = task.data
    task.check(net.predict(x))
    return repeated("net.predict(x)", net=net, x=x)


_Weighted = list[tuple[Any, Any]]  # Conv2d or Dense, and BatchNorm or None behind it


def _network(task: CnnTask) -> gm.Network:
    weighted: _Weighted = []
    layers = _layers(task.net.layers, task.net.input_shape, weighted)
    net = gm.Network(layers, input_shape=task.net.input_shape, rng=0)
    for (layer, norm), given in zip(weighted, task.weights(), strict=True):
        layer.weight = given.weight
        if norm is None or given.norm is None:
            layer.bias = given.bias
        else:
            norm.bias = given.bias
            norm.weight, norm.running_mean, norm.running_var = given.norm
    return net


def _layers(layers: Sequence[Layer], shape: Shape, weighted: _Weighted) -> list[gm.Layer]:
    """gemmule's, and in `weighted` those with weights, with the normalization behind them."""
    made: list[gm.Layer] = []
    for layer, before, _ in shapes(layers, shape):
        if isinstance(layer, Flatten):
            made.append(gm.Flatten())
        elif isinstance(layer, Mean):
            made.append(gm.GlobalAvgPool2d())
        elif isinstance(layer, MaxPooling):
            made.append(gm.MaxPool2d(layer.size, layer.step, layer.padding))
        elif isinstance(layer, Residual):
            main = _layers(layer.layers, before, weighted)
            around = _layers(layer.shortcut, before, weighted)
            made.append(gm.Residual(*main, shortcut=around or None, activation="relu"))
        elif isinstance(layer, Convolution):
            made += _convolution(layer, before[2], weighted)
        else:
            made.append(gm.Dense(before[0], layer.n_out, "relu" if layer.relu else None))
            weighted.append((made[-1], None))
    return made


def _convolution(layer: Convolution, channels: int, weighted: _Weighted) -> list[gm.Layer]:
    activation = "relu" if layer.relu else None
    norm = gm.BatchNorm(layer.filters, activation) if layer.norm else None
    conv = gm.Conv2d(
        channels,
        layer.filters,
        layer.kernel,
        None if layer.norm else activation,
        stride=layer.stride,
        padding=layer.padding,
        bias=not layer.norm,
    )
    weighted.append((conv, norm))
    return [conv] if norm is None else [conv, norm]
