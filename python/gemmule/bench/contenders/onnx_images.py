"""ONNX Runtime on images, which it takes channels-first: a layer as one node, a network as a converter would
write it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..cnn_tasks import Array, InferCnn
from ..layer_tasks import Conv, Pool
from ..networks import EPS, Convolution, Flatten, Layer, MaxPooling, Mean, Residual, Shape, Weights, shapes
from ..sample import Turn, repeated
from . import onnx_runtime
from .onnx_runtime import onnx

version = onnx_runtime.version


def conv(task: Conv) -> Turn:
    x, weight, _ = task.operands()
    model = _Model()
    window = _window(task.kernel, task.stride, task.padding)
    model.add("Conv", [_first(weight)], "y", **window, group=task.groups)
    shape = task.filters, task.out_size, task.out_size
    run, names, inputs = _session(model, _first(x), shape, task.threads)
    task.check_forward(x, weight, run(names, inputs)[0].transpose(0, 2, 3, 1))
    return repeated("run(names, inputs)", run=run, names=names, inputs=inputs)


def pool(task: Pool) -> Turn:
    x, _ = task.operands()
    model = _Model()
    operator = "MaxPool" if task.mode == "max" else "AveragePool"
    model.add(operator, [], "y", **_window(task.kernel, task.kernel, 0))
    shape = task.channels, task.out_size, task.out_size
    run, names, inputs = _session(model, _first(x), shape, task.threads)
    task.check_forward(x, run(names, inputs)[0].transpose(0, 2, 3, 1))
    return repeated("run(names, inputs)", run=run, names=names, inputs=inputs)


def infer_cnn(task: InferCnn) -> Turn:
    (x,) = task.data
    run, names, inputs = _session(_network(task), _first(x), (task.net.n_out,), task.threads)
    task.check(run(names, inputs)[0])
    return repeated("run(names, inputs)", run=run, names=names, inputs=inputs)


class _Model:
    """Nodes one after another, from x to y. `last`: the name of the newest result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.last = "x"

    def add(self, operator: str, weights: list[Array], name: str, *others: str, **attributes: Any) -> None:
        """A node on the last one's result, on other nodes' and on constants."""
        names = [f"{name} {index}" for index in range(len(weights))]
        self.constants += map(onnx.numpy_helper.from_array, weights, names)
        inputs = [self.last, *others, *names]
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], **attributes))
        self.last = name


def _network(task: InferCnn) -> _Model:
    model = _Model()
    _add(model, task.net.layers, task.net.input_shape, iter(task.weights()), "")
    model.nodes[-1].output[0] = "y"
    return model


def _add(
    model: _Model, layers: Sequence[Layer], shape: Shape, weights: Iterator[Weights], prefix: str
) -> None:
    images: tuple[int, ...] | None = None
    for index, (layer, before, _) in enumerate(shapes(layers, shape)):
        name = f"{prefix}layer {index}"
        if isinstance(layer, Flatten):
            images = before
            model.add("Flatten", [], name)
        elif isinstance(layer, Mean):
            model.add("GlobalAveragePool", [], f"{name}, mean")
            model.add("Flatten", [], name)
        elif isinstance(layer, MaxPooling):
            model.add("MaxPool", [], name, **_window(layer.size, layer.step, layer.padding))
        elif isinstance(layer, Residual):
            x = model.last
            _add(model, layer.layers, before, weights, f"{name}, ")
            made, model.last = model.last, x
            _add(model, layer.shortcut, before, weights, f"{name}, around, ")
            model.add("Add", [], f"{name}, sum", made)
            model.add("Relu", [], name)
        else:
            given = next(weights)
            weight = given.weight
            if isinstance(layer, Convolution):
                window = _window(layer.kernel, layer.stride, layer.padding)
                biases = [given.bias] if given.norm is None else []
                model.add("Conv", [_first(weight), *biases], f"{name}, z", **window)
            else:
                if images is not None:
                    weight = _first(weight.reshape(-1, *images)).reshape(weight.shape)
                    images = None
                model.add("Gemm", [weight, given.bias], f"{name}, z", transB=1)
            if given.norm is not None:
                scale, mean, variance = given.norm
                statistics = [scale, given.bias, mean, variance]
                model.add("BatchNormalization", statistics, f"{name}, norm", epsilon=EPS)
            if layer.relu:
                model.add("Relu", [], name)


def _session(model: _Model, x: Array, shape: tuple[int, ...], threads: int) -> tuple[Any, list[str], Any]:
    """What runs the model, the names of its outputs, its inputs. `shape`: of y, without the batch."""
    made = onnx_runtime.model("images", model.nodes, model.constants, x.shape, (len(x), *shape))
    return onnx_runtime.session(made, threads).run, ["y"], {"x": x}


def _window(kernel: int, stride: int, padding: int) -> dict[str, list[int]]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}


def _first(array: Array) -> Array:
    """Channels-first."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
