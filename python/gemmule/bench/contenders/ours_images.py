"""gemmule on images."""

from typing import Any

import numpy as np

import gemmule as gm
from gemmule import _core

from ..cnn_tasks import CnnTask, InferCnn, TrainCnn
from ..layer_tasks import Conv, Pool
from ..networks import Convolution, Flatten, MaxPooling
from ..sample import Turn, repeated, timed
from . import ours

version = ours.version


def conv(task: Conv) -> Turn:
    gm.set_num_threads(task.threads)
    x, weight, dz = task.operands()
    stride, padding, dilation = [task.stride] * 2, [task.padding] * 4, [1, 1]
    if not task.backward:
        z = np.full_like(dz, np.nan)
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
    dx = np.full_like(x, np.nan) if task.input_grad else None
    dweight = np.full_like(weight, np.nan)
    where = stride, padding, dilation, task.groups
    calls = ["weight_grad(x, dz, dweight, *where)"]
    if task.input_grad:
        calls.insert(0, "input_grad(dz, weight, dx, *where)")
    names: dict[str, Any] = {
        "input_grad": _core.conv2d_input_grad,
        "weight_grad": _core.conv2d_weight_grad,
        **{"x": x, "weight": weight, "dz": dz, "dx": dx, "dweight": dweight, "where": where},
    }
    turn = repeated("; ".join(calls), **names)  # it calls them once at least
    task.check_backward(x, weight, dz, dx, dweight)
    return turn


def pool(task: Pool) -> Turn:
    """Backward from the places that forward keeps in training."""
    gm.set_num_threads(task.threads)
    x, dy = task.operands()
    y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
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


def _network(task: CnnTask) -> gm.Network:
    layers: list[Any] = []
    for layer, before, _ in task.net.shapes():
        if isinstance(layer, Flatten):
            layers.append(gm.Flatten())
        elif isinstance(layer, MaxPooling):
            layers.append(gm.MaxPool2d(layer.size))
        else:
            activation = "relu" if layer.relu else None
            if isinstance(layer, Convolution):
                layers.append(
                    gm.Conv2d(
                        before[2],
                        layer.filters,
                        layer.kernel,
                        activation,
                        stride=layer.stride,
                        padding=layer.padding,
                    )
                )
            else:
                layers.append(gm.Dense(before[0], layer.n_out, activation))
    net = gm.Network(layers, input_shape=task.net.input_shape, rng=0)
    weighted = [made for made in layers if isinstance(made, gm.Conv2d | gm.Dense)]
    for made, (weight, bias) in zip(weighted, task.weights(), strict=True):
        made.weight[...] = weight
        if made.bias is not None:
            made.bias[...] = bias
    return net
