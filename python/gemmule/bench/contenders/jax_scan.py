"""JAX as an expert writes it: a whole call, every epoch and batch of it, is one jitted program.

`lax.scan` goes over the batches, state is donated, the samples stay on the device. The order of each epoch is
drawn by NumPy, which takes a millisecond where `jax.random.permutation` sorts. What is fastest otherwise
depends on machine and task, so the variants are tried outside the clock: each batch gathered in its step
("take"), or the whole set permuted once per epoch ("permute"); weights (n_in, n_out) or (n_out, n_in); the
scan's body once or four times. XLA's flags (fast math, XNNPACK, oneDNN, its schedulers) gave nothing.
"""

import importlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..cnn_tasks import TrainCnn
from ..sample import Turn, fastest, repeated, timed
from ..tasks import Infer, NetworkTask, Train

jax: Any = importlib.import_module("jax")
jnp: Any = jax.numpy

_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's

State = Any  # a pytree: parameters, optimizer slots, updates done
Function = Callable[..., Any]  # for jax to transform


def version() -> str:
    return f"JAX {jax.__version__}"


def train(task: Train, variant: str | None = None) -> Turn:
    limit_threads(task.threads)
    return _training(task, variant or _fastest_training(task))


def infer(task: Infer, variant: str | None = None) -> Turn:
    """Weights are arguments of the program, or constants that the compiler may lay out anew."""
    limit_threads(task.threads)
    names = [f"{kind}, {layout}" for kind in ("arguments", "constants") for layout in _FORWARD]
    return _inference(task, variant or fastest({name: partial(_inference, task, name) for name in names}))


def _fastest_training(task: Train) -> str:
    """The best way to gather and layout first, then whether to unroll."""
    gathers = ("take", "permute") if task.shuffle else ("whole set",)
    names = [f"{gather}, {layout}, unroll 1" for gather in gathers for layout in _FORWARD]
    best = fastest({name: partial(_training, task, name) for name in names})
    names = [best, best.replace("unroll 1", "unroll 4")]
    return fastest({name: partial(_training, task, name) for name in names})


def limit_threads(threads: int) -> None:
    """XLA makes as many threads as the affinity mask has cores when it is first used."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:threads])


def _training(task: Train, variant: str) -> Turn:
    gather, layout, unroll = variant.split(", ")
    samples, labels = task.data
    x = jnp.asarray(samples)
    y = jnp.asarray(labels.astype(np.int32) if task.loss == "cross_entropy" else labels)
    loss = loss_of(task, _FORWARD[layout])
    run = jax.jit(training_program(task, loss, gather == "permute", int(unroll.split()[1])), donate_argnums=0)
    parameters = _parameters(task, layout)
    zeros = partial(jax.tree.map, jnp.zeros_like)
    state = parameters, [zeros(parameters) for _ in range(slot_count(task))], jnp.zeros((), jnp.int32)
    rng = np.random.default_rng(0)

    def call() -> float:
        nonlocal state
        orders = None
        if task.shuffle:
            orders = np.stack([rng.permutation(task.samples).astype(np.int32) for _ in range(task.epochs)])
        state, loss = run(state, x, y, orders)
        return float(loss)

    return timed(call, variant)


def training_program(task: Train | TrainCnn, loss_function: Function, permute: bool, unroll: int) -> Function:
    """(state, x, y, orders) -> (state, the last epoch's mean loss), of all epochs."""
    scan = partial(jax.lax.scan, unroll=unroll)
    loss_and_gradients = jax.value_and_grad(loss_function)
    whole, rest = divmod(task.samples, task.batch)

    def step(state: State, batch: Any) -> tuple[State, Any]:
        parameters, slots, updates = state
        loss, gradients = loss_and_gradients(parameters, *batch)
        return update(task, parameters, gradients, slots, updates + 1), loss * len(batch[1])

    def take(arrays: Any, indices: Any) -> Any:
        return [array.at[indices].get(mode="promise_in_bounds", unique_indices=True) for array in arrays]

    def epoch(state: State, arrays: Any, order: Any) -> tuple[State, Any]:
        batches = order[: whole * task.batch].reshape(whole, task.batch)
        if permute:
            permuted = take(arrays, batches.ravel())
            parts = [array.reshape(whole, task.batch, *array.shape[1:]) for array in permuted]
            state, losses = scan(step, state, parts)
        else:
            state, losses = scan(lambda state, indices: step(state, take(arrays, indices)), state, batches)
        total = losses.sum()
        if rest:
            state, loss = step(state, take(arrays, order[-rest:]))
            total += loss
        return state, total

    def run(state: State, x: Any, y: Any, orders: Any) -> tuple[State, Any]:
        if orders is None:
            state, totals = scan(lambda state, _: step(state, (x, y)), state, length=task.epochs)
        elif task.epochs == 1:
            state, total = epoch(state, (x, y), orders[0])
            totals = total[None]
        else:
            state, totals = jax.lax.scan(lambda state, order: epoch(state, (x, y), order), state, orders)
        return state, totals[-1] / task.samples

    return run


def _inference(task: Infer, variant: str) -> Turn:
    kind, layout = variant.split(", ")
    forward, parameters = _FORWARD[layout], _parameters(task, layout)
    x = jnp.asarray(task.data[0])
    if kind == "constants":
        program, arguments = jax.jit(lambda x: forward(parameters, x)), "x"
    else:
        program, arguments = jax.jit(forward), "parameters, x"
    task.check(np.asarray(program(x) if kind == "constants" else program(parameters, x)))
    statement = f"program({arguments}).block_until_ready()"
    return repeated(statement, variant, program=program, parameters=parameters, x=x)


def _parameters(task: NetworkTask, layout: str) -> Any:
    """[(W, b), ...]"""
    weights = task.weights()
    return [(jnp.array(w if layout == "n_out x n_in" else w.T), jnp.array(b)) for w, b in weights]


def _forward_in_out(parameters: Any, h: Any) -> Any:
    for index, (weight, bias) in enumerate(parameters):
        if index:
            h = jnp.maximum(h, 0)
        h = h @ weight + bias
    return h


def _forward_out_in(parameters: Any, h: Any) -> Any:
    return _forward_in_out([(weight.T, bias) for weight, bias in parameters], h)


_FORWARD = {"n_in x n_out": _forward_in_out, "n_out x n_in": _forward_out_in}


def loss_of(task: Train | TrainCnn, forward: Function) -> Function:
    """Labels as one-hot rows: the gradient of an indexed log-probability would be a scatter, one element at a
    time."""

    def cross_entropy(parameters: Any, x: Any, y: Any) -> Any:
        z = forward(parameters, x)
        return -(jax.nn.log_softmax(z) * jax.nn.one_hot(y, z.shape[1])).sum() / len(y)

    def mse(parameters: Any, x: Any, y: Any) -> Any:
        return ((forward(parameters, x) - y) ** 2).mean()

    return {"cross_entropy": cross_entropy, "mse": mse}[task.loss]


def slot_count(task: Train | TrainCnn) -> int:
    return {"sgd": 0, "momentum": 1, "adam": 2}[task.optimizer]


def update(task: Train | TrainCnn, parameters: Any, gradients: Any, slots: list[Any], updates: Any) -> State:
    """As torch.optim.SGD and Adam."""
    if task.optimizer == "sgd":
        return jax.tree.map(lambda p, g: p - task.lr * g, parameters, gradients), slots, updates
    if task.optimizer == "momentum":
        velocity = jax.tree.map(lambda v, g: task.momentum * v + g, slots[0], gradients)
        return jax.tree.map(lambda p, v: p - task.lr * v, parameters, velocity), [velocity], updates
    first, second = _BETAS
    mean = jax.tree.map(lambda m, g: first * m + (1 - first) * g, slots[0], gradients)
    square = jax.tree.map(lambda s, g: second * s + (1 - second) * g * g, slots[1], gradients)
    rate, root = task.lr / (1 - first**updates), jnp.sqrt(1 - second**updates)
    moved = jax.tree.map(lambda p, m, s: p - rate * m / (jnp.sqrt(s) / root + _EPS), parameters, mean, square)
    return moved, [mean, square], updates
