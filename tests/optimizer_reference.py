"""Optimizer rules beyond those of reference.py, and what every rule may wear, in NumPy at float64. Nothing
here imports gemmule. Formulas: docs/math.md."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from reference import Adam

Array = NDArray[Any]


class Rule(Protocol):
    """One parameter's optimizer, with its state."""

    def step(self, w: Array, grad: Array) -> Array: ...


@dataclass
class RMSprop:
    """v = alpha v + (1 - alpha) g^2; q = g / (sqrt(v) + eps); w -= lr q. Weight decay is added to g."""

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    weight_decay: float = 0.0
    v: Array | float = field(default=0.0, init=False)
    m: Array | float = field(default=0.0, init=False)
    b: Array | float = field(default=0.0, init=False)

    def step(self, w: Array, grad: Array) -> Array:
        g = grad + self.weight_decay * w
        self.v = self.alpha * self.v + (1 - self.alpha) * g * g
        self.m = self.alpha * self.m + (1 - self.alpha) * g
        spread = np.maximum(self.v - self.m * self.m, 0) if self.centered else self.v
        q = g / (np.sqrt(spread) + self.eps)
        self.b = self.momentum * self.b + q
        return np.asarray(w - self.lr * self.b)


@dataclass
class Adagrad:
    """s += g^2; w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps). Weight decay is added to g."""

    lr: float = 0.01
    lr_decay: float = 0.0
    start: float = 0.0
    eps: float = 1e-10
    weight_decay: float = 0.0
    t: int = field(default=0, init=False)
    s: Array | float = field(default=0.0, init=False)

    def step(self, w: Array, grad: Array) -> Array:
        if self.t == 0:
            self.s = np.full_like(w, self.start)
        self.t += 1
        g = grad + self.weight_decay * w
        self.s = self.s + g * g
        return np.asarray(w - self.lr / (1 + (self.t - 1) * self.lr_decay) * g / (np.sqrt(self.s) + self.eps))


@dataclass
class Lion:
    """w -= lr (sign(beta1 m + (1 - beta1) g) + decay w); m = beta2 m + (1 - beta2) g."""

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    m: Array | float = field(default=0.0, init=False)

    def step(self, w: Array, grad: Array) -> Array:
        direction = np.sign(self.beta1 * self.m + (1 - self.beta1) * grad) + self.weight_decay * w
        self.m = self.beta2 * self.m + (1 - self.beta2) * grad
        return np.asarray(w - self.lr * direction)


def newton_schulz(x: Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> Array:
    """x / max(|x|, eps), then steps times (a + b x x^T + c (x x^T)^2) x; of the transpose where x is tall."""
    a, b, c = coefficients
    if x.shape[0] > x.shape[1]:
        return newton_schulz(x.T, coefficients, steps, eps).T
    x = x / max(float(np.linalg.norm(x)), eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@dataclass
class Muon:
    """A matrix by orthogonalised momentum, a vector by AdamW."""

    lr: float = 1e-3
    momentum: float = 0.95
    nesterov: bool = True
    weight_decay: float = 0.1
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    steps: int = 5
    eps: float = 1e-7
    match_rms: bool = False
    vectors: Rule = field(default_factory=lambda: Adam(1e-3, decoupled=True))
    b: Array | float = field(default=0.0, init=False)

    def step(self, w: Array, grad: Array) -> Array:
        if w.ndim < 2:
            return self.vectors.step(w, grad)
        mu = self.momentum
        self.b = mu * self.b + (1 - mu) * grad
        d = (1 - mu) * grad + mu * self.b if self.nesterov else np.asarray(self.b)
        rows, cols = d.shape
        factor = 0.2 * math.sqrt(max(rows, cols)) if self.match_rms else math.sqrt(max(1.0, rows / cols))
        x = newton_schulz(d, self.coefficients, self.steps, self.eps)
        return np.asarray((1 - self.lr * self.weight_decay) * w - self.lr * factor * x)


@dataclass
class Dressed:
    """Every parameter of a network under one rule, with what `gemmule.optim.Optimizer` adds to it."""

    rule: Callable[[], Rule]
    l1: float = 0.0
    clip_value: float = math.inf
    clip_norm: float = math.inf
    max_norm: float = math.inf
    ema: float = 0.0
    rules: dict[str, Rule] = field(default_factory=dict, init=False)
    average: dict[str, Array] = field(default_factory=dict, init=False)

    def step(self, weights: dict[str, Array], grads: dict[str, Array]) -> dict[str, Array]:
        clipped = {name: np.clip(g, -self.clip_value, self.clip_value) for name, g in grads.items()}
        norm = math.sqrt(sum(float((g * g).sum()) for g in clipped.values()))
        scale = min(1.0, self.clip_norm / (norm + 1e-6))
        new = {}
        for name, w in weights.items():
            rule = self.rules.setdefault(name, self.rule())
            average = self.average.setdefault(name, w)
            w = rule.step(w, clipped[name] * scale + self.l1 * np.sign(w))
            if w.ndim > 1 and self.max_norm < math.inf:
                norms = np.linalg.norm(w, axis=1, keepdims=True)
                w = w * np.minimum(1, self.max_norm / norms)
            self.average[name] = self.ema * average + (1 - self.ema) * w
            new[name] = w
        return new
