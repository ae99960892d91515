"""What every op of gemmule computes, in readable NumPy at float64: the yardstick of the tests.

Nothing here is fast and nothing here imports gemmule. The formulas are those of docs/math.md; where
frameworks differ they are PyTorch's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
SlopeFunction = Callable[[Array, float], Array]

# -- scalar functions ----------------------------------------------------------------------------------------

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: ArrayLike) -> Array:
    """The error function to about 1 ULP of float64, through the C library."""
    return np.asarray(_erf(np.asarray(x, np.float64)), np.float64)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, in the type of x (longdouble included)."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _normal_cdf(z: Array) -> Array:
    # erfc keeps the digits that 1 + erf loses in the left tail.
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return 0.5 * np.asarray(erfc(-z / math.sqrt(2)), np.float64)


def _normal_density(z: Array) -> Array:
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


# -- activations: h = f(z), f'(z), f''(z) --------------------------------------------------------------------


class Activation(NamedTuple):
    """f and its first two derivatives; each takes z and the activation's one parameter."""

    f: SlopeFunction
    df: SlopeFunction
    d2f: SlopeFunction
    slope: float = 1.0
    kinks: tuple[float, ...] = ()  # where f' jumps


def _elu_tail(z: Array) -> Array:
    return np.exp(np.minimum(z, 0))


_C, _D = math.sqrt(2 / math.pi), 0.044715


def _gelu_tanh(z: Array, _: float) -> Array:
    return 0.5 * z * (1 + np.tanh(_C * (z + _D * z**3)))


def _gelu_tanh_d(z: Array, _: float) -> Array:
    t = np.tanh(_C * (z + _D * z**3))
    du = _C * (1 + 3 * _D * z**2)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * du


def _gelu_tanh_d2(z: Array, _: float) -> Array:
    t = np.tanh(_C * (z + _D * z**3))
    du, d2u = _C * (1 + 3 * _D * z**2), 6 * _C * _D * z
    return (1 - t**2) * (du + 0.5 * z * d2u - z * t * du**2)


def _silu_d(z: Array, _: float) -> Array:
    s = logistic(z)
    return s * (1 + z * (1 - s))


def _silu_d2(z: Array, _: float) -> Array:
    s = logistic(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


def _sigmoid_d(z: Array, b: float) -> Array:
    return b * logistic(b * z) * logistic(-b * z)


def _sigmoid_d2(z: Array, b: float) -> Array:
    return b * _sigmoid_d(z, b) * (1 - 2 * logistic(b * z))


def _zero(z: Array, _: float) -> Array:
    return np.zeros_like(z)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda z, _: z, lambda z, _: np.ones_like(z), _zero),
    # NaN stays NaN: np.maximum propagates it.
    "relu": Activation(
        lambda z, _: np.maximum(z, 0), lambda z, _: np.where(z > 0, 1.0, 0.0), _zero, kinks=(0.0,)
    ),
    "leaky_relu": Activation(
        lambda z, s: np.where(z > 0, z, s * z),
        lambda z, s: np.where(z > 0, 1.0, s),
        _zero,
        slope=0.01,
        kinks=(0.0,),
    ),
    "elu": Activation(
        lambda z, a: np.where(z > 0, z, a * np.expm1(np.minimum(z, 0))),
        lambda z, a: np.where(z > 0, 1.0, a * _elu_tail(z)),
        lambda z, a: np.where(z > 0, 0.0, a * _elu_tail(z)),
        kinks=(0.0,),
    ),
    "gelu": Activation(
        lambda z, _: z * _normal_cdf(z),
        lambda z, _: _normal_cdf(z) + z * _normal_density(z),
        lambda z, _: (2 - z * z) * _normal_density(z),
    ),
    "gelu_tanh": Activation(_gelu_tanh, _gelu_tanh_d, _gelu_tanh_d2),
    "silu": Activation(lambda z, _: z * logistic(z), _silu_d, _silu_d2),
    "sigmoid": Activation(lambda z, b: logistic(b * z), _sigmoid_d, _sigmoid_d2),
    "tanh": Activation(
        lambda z, _: np.tanh(z),
        lambda z, _: 1 - np.tanh(z) ** 2,
        lambda z, _: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2),
    ),
    "softplus": Activation(
        lambda z, _: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
        lambda z, _: logistic(z),
        lambda z, _: logistic(z) * logistic(-z),
    ),
}


# -- linear algebra ------------------------------------------------------------------------------------------


def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    trans_a: bool = False,
    trans_b: bool = False,
    bias: Array | None = None,
    exact: type = np.float64,
) -> tuple[Array, Array]:
    """C = alpha op(A) op(B) + beta C + bias, and G = |alpha| |op(A)| |op(B)| + |beta||C| + |bias|.

    Computed in type `exact`. An operand that BLAS does not read (alpha = 0, beta = 0) is not read here.
    """
    a = np.asarray(a.T if trans_a else a, exact)
    b = np.asarray(b.T if trans_b else b, exact)
    value = np.zeros((a.shape[0], b.shape[1]), exact)
    size = np.zeros_like(value)
    if alpha != 0:
        value += exact(alpha) * (a @ b)
        size += abs(exact(alpha)) * (abs(a) @ abs(b))
    if beta != 0:
        assert c is not None
        value += exact(beta) * c.astype(exact)
        size += abs(exact(beta)) * abs(c.astype(exact))
    if bias is not None:
        value += bias.astype(exact)
        size += abs(bias.astype(exact))
    return value, size


def dense(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """z = x W^T + b: x (N, n_in), weight (n_out, n_in), bias (n_out,)."""
    z = x @ weight.T
    return z if bias is None else z + bias


def dense_backward(x: Array, weight: Array, dz: Array) -> tuple[Array, Array, Array]:
    """dx = dz W, dW = dz^T x, db = column sums of dz."""
    return dz @ weight, dz.T @ x, dz.sum(axis=0)


# -- softmax -------------------------------------------------------------------------------------------------


def softmax(z: Array) -> Array:
    """Over the last axis, shifted by its maximum."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def softmax_backward(dh: Array, h: Array) -> Array:
    """dz = h (dh - <dh, h>)."""
    return np.asarray(h * (dh - (dh * h).sum(axis=-1, keepdims=True)))


def log_softmax(z: Array) -> Array:
    shifted = z - z.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


# -- losses: mean over samples (and over outputs, for the elementwise ones), and the gradient of that mean ---


def one_hot(labels: Array, classes: int) -> Array:
    return np.eye(classes)[labels]


def mse(pred: Array, target: Array) -> tuple[float, Array]:
    d = pred - target
    return float((d * d).mean()), 2 * d / d.size


def half_mse(pred: Array, target: Array) -> tuple[float, Array]:
    loss, grad = mse(pred, target)
    return loss / 2, grad / 2


def mae(pred: Array, target: Array) -> tuple[float, Array]:
    d = pred - target
    return float(abs(d).mean()), np.sign(d) / d.size


def bce(pred: Array, target: Array) -> tuple[float, Array]:
    """On probabilities. PyTorch's clamps: log at least -100, p (1 - p) at least 1e-12."""
    with np.errstate(divide="ignore"):
        log_p, log_q = np.maximum(np.log(pred), -100), np.maximum(np.log1p(-pred), -100)
    loss = -(target * log_p + (1 - target) * log_q)
    grad = (pred - target) / np.maximum(pred * (1 - pred), 1e-12)
    return float(loss.mean()), grad / grad.size


def bce_with_logits(pred: Array, target: Array) -> tuple[float, Array]:
    loss = np.maximum(pred, 0) - pred * target + np.log1p(np.exp(-abs(pred)))
    return float(loss.mean()), (logistic(pred) - target) / pred.size


def huber(pred: Array, target: Array, delta: float = 1.0) -> tuple[float, Array]:
    d = pred - target
    loss = np.where(abs(d) <= delta, d * d / 2, delta * (abs(d) - delta / 2))
    return float(loss.mean()), np.clip(d, -delta, delta) / d.size


def hinge(pred: Array, target: Array) -> tuple[float, Array]:
    """Targets -1 and 1; or labels (N,), where the right output is to be 1 above the largest other."""
    if target.ndim == 1:
        rows = np.arange(len(pred))
        others = np.where(one_hot(target, pred.shape[1]) == 1, -np.inf, pred)
        rival = others.argmax(axis=1)
        missing = np.maximum(0, 1 + pred[rows, rival] - pred[rows, target])
        grad = np.zeros_like(pred)
        grad[rows, rival] = missing > 0
        grad[rows, target] = -grad[rows, rival]
        return float(missing.mean()), grad / len(pred)
    missing = np.maximum(0, 1 - target * pred)
    return float(missing.mean()), -target * (missing > 0) / pred.size


def poisson(pred: Array, target: Array, log_input: bool = True, eps: float = 1e-8) -> tuple[float, Array]:
    """Counts, of the rate exp(pred) or pred."""
    if log_input:
        return float((np.exp(pred) - target * pred).mean()), (np.exp(pred) - target) / pred.size
    loss = pred - target * np.log(pred + eps)
    return float(loss.mean()), (1 - target / (pred + eps)) / pred.size


def smoothed(target: Array, classes: int, smoothing: float) -> Array:
    t = one_hot(target, classes) if target.ndim == 1 else target
    return t * (1 - smoothing) + smoothing / classes


def kl_divergence(pred: Array, target: Array) -> tuple[float, Array]:
    """On logits; the targets are distributions."""
    with np.errstate(divide="ignore", invalid="ignore"):
        negative_entropy = np.where(target == 0, 0, target * np.log(target)).sum(axis=-1).mean()
    loss, grad = cross_entropy(pred, target)
    return float(loss + negative_entropy), grad


def cross_entropy(pred: Array, target: Array, smoothing: float = 0.0) -> tuple[float, Array]:
    """On logits. Target: labels (N,), or a distribution over the classes (N, C)."""
    t = smoothed(target, pred.shape[-1], smoothing)
    # 0 log 0 = 0: a class of weight zero does not count, however small its probability.
    loss = -np.where(t == 0, 0, t * log_softmax(pred)).sum(axis=-1)
    grad = softmax(pred) * t.sum(axis=-1, keepdims=True) - t
    return float(loss.mean()), grad / len(pred)


def cross_entropy_probabilities(pred: Array, target: Array, smoothing: float = 0.0) -> tuple[float, Array]:
    """On the output of a softmax, away from p = 0."""
    t = smoothed(target, pred.shape[-1], smoothing)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = -np.where(t == 0, 0, t * np.log(pred)).sum(axis=-1)
        grad = -np.where(t == 0, 0, t / pred)
    return float(loss.mean()), grad / len(pred)


LOSSES: dict[str, Callable[[Array, Array], tuple[float, Array]]] = {
    "mse": mse,
    "half_mse": half_mse,
    "mae": mae,
    "huber": huber,
    "bce": bce,
    "bce_with_logits": bce_with_logits,
    "hinge": hinge,
    "cross_entropy": cross_entropy,
    "kl_divergence": kl_divergence,
    "poisson": poisson,
}


# -- optimizers: PyTorch's formulas --------------------------------------------------------------------------


@dataclass
class SGD:
    """v = mu v + g; w -= lr v, or lr (g + mu v) with Nesterov. Weight decay is added to g."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    velocity: Array | float = 0.0

    def step(self, w: Array, grad: Array) -> Array:
        g = grad + self.weight_decay * w
        self.velocity = self.momentum * self.velocity + g
        direction = g + self.momentum * self.velocity if self.nesterov else self.velocity
        return np.asarray(w - self.lr * direction)


@dataclass
class Adam:
    """m, v = running means of g and g^2; w -= lr m^ / (sqrt(v^) + eps). Weight decay is added to g."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False  # AdamW: w *= 1 - lr decay, and g as it is
    t: int = field(default=0, init=False)
    m: Array | float = field(default=0.0, init=False)
    v: Array | float = field(default=0.0, init=False)

    def step(self, w: Array, grad: Array) -> Array:
        self.t += 1
        if self.decoupled:
            g, w = grad, w * (1 - self.lr * self.weight_decay)
        else:
            g = grad + self.weight_decay * w
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = np.asarray(self.v / (1 - self.beta2**self.t))
        return np.asarray(w - self.lr * m_hat / (np.sqrt(v_hat) + self.eps))


# -- random numbers ------------------------------------------------------------------------------------------


def philox4x32(counter: Array, key: int, rounds: int = 10) -> Array:
    """Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

    counter (..., 4) of 32-bit words, key 64 bits, low word first; returns (..., 4) of uint32.
    """
    mask = np.uint64(0xFFFFFFFF)
    c = [np.asarray(counter[..., i], np.uint64) for i in range(4)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(rounds):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        hi0, lo0, hi1, lo1 = p0 >> np.uint64(32), p0 & mask, p1 >> np.uint64(32), p1 & mask
        c = [hi1 ^ c[1] ^ np.uint64(k0), lo1, hi0 ^ c[3] ^ np.uint64(k1), lo0]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=-1).astype(np.uint32)


def dropout_scale(shape: tuple[int, int], rate: float, *, key: int, step: int, layer: int) -> Array:
    """What dropout multiplies (rows, units) by: 0 with probability `rate`, else 1 / (1 - rate).

    Counter {unit / 4, sample, layer, step}, and unit % 4 picks the word, read as a number in [0, 1).
    """
    samples, units = shape
    counter = np.empty((samples, -(-units // 4), 4), np.uint64)
    counter[..., 0] = np.arange(counter.shape[1])
    counter[..., 1] = np.arange(samples)[:, None]
    counter[..., 2:] = layer, step
    words = philox4x32(counter, key).reshape(samples, -1)[:, :units]
    uniform = words * 2.0**-32
    return np.where(uniform < rate, 0.0, 1 / (1 - rate))
