"""JAX on a convolutional network of the table.

What is fastest depends on machine and network, so variants are tried outside the clock: images (N, H, W, C)
with filters (k, k, n_in, n_out), or both channels-first; a call as one jitted `lax.scan` over its batches, as
for dense networks ("scan"), or a jitted step called from Python ("steps"): XLA's convolutions for the CPU may
run on one thread within a loop, six times slower on two cores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..cnn_tasks import Array, CnnTask, InferCnn, TrainCnn
from ..networks import (
    EPS,
    Convolution,
    Flatten,
    Layer,
    Linear,
    MaxPooling,
    Mean,
    Residual,
    Shape,
    Weights,
    shapes,
)
from ..sample import Turn, fastest, repeated, timed
from . import jax_scan
from .jax_scan import Function, jax, jnp

version = jax_scan.version

_TRIAL_STEPS = 4  # of a variant: a slow one takes seconds for each
_LAYOUTS = {"NHWC": ("NHWC", "HWIO", "NHWC"), "NCHW": ("NCHW", "OIHW", "NCHW")}


def train_cnn(task: TrainCnn, variant: str | None = None) -> Turn:
    jax_scan.limit_threads(task.threads)
    names = [f"{layout}, {loop}" for loop in ("steps", "scan") for layout in _LAYOUTS]
    few = replace(task, samples=min(task.samples, _TRIAL_STEPS * task.batch))
    return _training(task, variant or fastest({name: partial(_training, few, name) for name in names}))


def infer_cnn(task: InferCnn, variant: str | None = None) -> Turn:
    """Weights are constants that the compiler may lay out anew, or arguments of the program."""
    jax_scan.limit_threads(task.threads)
    names = [f"{layout}, {kind}" for layout in _LAYOUTS for kind in ("constants", "arguments")]
    return _inference(task, variant or fastest({name: partial(_inference, task, name) for name in names}))


def _training(task: TrainCnn, variant: str) -> Turn:
    layout, loop = variant.split(", ")
    samples, labels = task.data
    x, y = jnp.asarray(_images(samples, layout)), jnp.asarray(labels.astype(np.int32))
    loss = jax_scan.loss_of(task, _forward(task, layout))
    run = _stepwise(task, loss) if loop == "steps" else _whole(task, loss)
    state: jax_scan.State = _parameters(task, layout), [], jnp.zeros((), jnp.int32)
    rng = np.random.default_rng(0)

    def call() -> float:
        nonlocal state
        orders = None
        if task.shuffle:
            orders = np.stack([rng.permutation(task.samples).astype(np.int32) for _ in range(task.epochs)])
        state, loss = run(state, x, y, orders)
        return float(loss)

    return timed(call, variant)


def _whole(task: TrainCnn, loss: Function) -> Function:
    """(state, x, y, orders) -> (state, the last epoch's mean loss), as one program."""
    program = jax_scan.training_program(task, loss, permute=False, unroll=1)
    return jax.jit(program, donate_argnums=0)  # type: ignore[no-any-return]


def _stepwise(task: TrainCnn, loss_function: Function) -> Function:
    """The same, a program per step."""
    loss_and_gradients = jax.value_and_grad(loss_function)

    def step(parameters: Any, total: Any, x: Any, y: Any, indices: Any) -> Any:
        rows, targets = (x, y) if indices is None else (x[indices], y[indices])
        loss, gradients = loss_and_gradients(parameters, rows, targets)
        parameters, _, _ = jax_scan.update(task, parameters, gradients, [], None)
        return parameters, total + loss * len(targets)

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def run(state: Any, x: Any, y: Any, orders: Any) -> Any:
        parameters, slots, updates = state
        for epoch in range(task.epochs):
            total = jnp.zeros(())
            order = None if orders is None else orders[epoch]
            for at in range(0, task.samples, task.batch):
                indices = None if order is None else order[at : at + task.batch]
                parameters, total = compiled(parameters, total, x, y, indices)
        return (parameters, slots, updates), total / task.samples

    return run


def _inference(task: InferCnn, variant: str) -> Turn:
    layout, kind = variant.split(", ")
    forward, parameters = _forward(task, layout), _parameters(task, layout)
    x = jnp.asarray(_images(task.data[0], layout))
    if kind == "constants":
        program, arguments = jax.jit(lambda x: forward(parameters, x)), "x"
    else:
        program, arguments = jax.jit(forward), "parameters, x"
    task.check(np.asarray(program(x) if kind == "constants" else program(parameters, x)))
    statement = f"program({arguments}).block_until_ready()"
    return repeated(statement, variant, program=program, parameters=parameters, x=x)


def _images(x: Array, layout: str) -> Array:
    return x if layout == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _parameters(task: CnnTask, layout: str) -> list[Any]:
    """[(W, b), ...], or (W, b, scale) and for inference mean and variance where there is a normalization:
    filters in the layout's order, dense weights (n_in, n_out) for images as they lie."""
    return list(_arranged(task.net.layers, task.net.input_shape, iter(task.weights()), layout, task.kind))


def _arranged(
    layers: Sequence[Layer], shape: Shape, weights: Iterator[Weights], layout: str, kind: str
) -> Iterator[Any]:
    images: tuple[int, ...] | None = None
    for layer, before, _ in shapes(layers, shape):
        if isinstance(layer, Flatten):
            images = before
        elif isinstance(layer, Residual):
            yield from _arranged(layer.layers, before, weights, layout, kind)
            yield from _arranged(layer.shortcut, before, weights, layout, kind)
        elif isinstance(layer, Convolution):
            weight, bias, norm = next(weights)
            axes = (1, 2, 3, 0) if layout == "NHWC" else (0, 3, 1, 2)
            others = () if norm is None else norm if kind == InferCnn.kind else norm[:1]
            channels = [_of_channels(array, layout) for array in (bias, *others)]
            yield (jnp.array(weight.transpose(axes)), *channels)
        elif isinstance(layer, Linear):
            weight, bias, _ = next(weights)
            if images is not None and layout == "NCHW":
                weight = weight.reshape(-1, *images).transpose(0, 3, 1, 2).reshape(weight.shape)
            images = None
            yield jnp.array(weight.T), jnp.array(bias)


def _of_channels(array: Array, layout: str) -> Any:
    return jnp.array(array if layout == "NHWC" else array[:, None, None])


def _forward(task: CnnTask, layout: str) -> Function:
    """(parameters, images) -> outputs."""

    def forward(parameters: Any, h: Any) -> Any:
        return _applied(task.net.layers, iter(parameters), h, layout)

    return forward


def _applied(layers: Sequence[Layer], own: Iterator[Any], h: Any, layout: str) -> Any:
    pixels = (1, 2) if layout == "NHWC" else (2, 3)
    for layer in layers:
        if isinstance(layer, Flatten):
            h = h.reshape(len(h), -1)
        elif isinstance(layer, Mean):
            h = h.mean(axis=pixels)
        elif isinstance(layer, MaxPooling):
            h = _max_pool(h, layer, layout)
        elif isinstance(layer, Residual):
            made = _applied(layer.layers, own, h, layout)
            h = jnp.maximum(made + _applied(layer.shortcut, own, h, layout), 0)
        else:
            weight, bias, *norm = next(own)
            if isinstance(layer, Convolution):
                h = _convolved(layer, h, weight, layout)
                h = _normalized(h, *norm, pixels=pixels) if norm else h
            else:
                h = h @ weight
            h = jnp.maximum(h + bias, 0) if layer.relu else h + bias
    return h


def _normalized(h: Any, scale: Any, *running: Any, pixels: tuple[int, int]) -> Any:
    """By the batch's statistics in training, which are not followed: that costs JAX nothing."""
    if running:
        mean, variance = running
    else:
        mean, variance = (of(axis=(0, *pixels), keepdims=True) for of in (h.mean, h.var))
    return (h - mean) * (scale * jax.lax.rsqrt(variance + EPS))


def _convolved(layer: Convolution, h: Any, weight: Any, layout: str) -> Any:
    pads = [(layer.padding, layer.padding)] * 2
    strides = (layer.stride, layer.stride)
    return jax.lax.conv_general_dilated(h, weight, strides, pads, dimension_numbers=_LAYOUTS[layout])


def _max_pool(h: Any, layer: MaxPooling, layout: str) -> Any:
    def on_pixels(size: int) -> tuple[int, ...]:
        return (1, size, size, 1) if layout == "NHWC" else (1, 1, size, size)

    pads = [(0, 0) if size == 1 else (layer.padding,) * 2 for size in on_pixels(layer.size)]
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, on_pixels(layer.size), on_pixels(layer.step), pads)
