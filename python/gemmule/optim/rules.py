"""The rules that update each element by itself. Their formulas are compiled: csrc/core/updates.h."""

from typing import Unpack

from ..arrays import fraction, not_negative
from ..schedules import Schedule
from .base import Extras, Optimizer, checked_betas, rate


class SGD(Optimizer):
    """w -= lr v with v = momentum v + g (v = g on the first step), g having weight_decay w added.

    nesterov: w -= lr (g + momentum v). Further keywords: `Optimizer`."""

    rule = "sgd"

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        weight_decay: float = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        super().__init__(**extras)

    def _hyper(self) -> dict[str, float]:
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        return {
            "lr": rate(self.lr, "SGD: lr"),
            "momentum": fraction(self.momentum, "SGD: momentum"),
            "nesterov": float(bool(self.nesterov)),
            "weight_decay": not_negative(self.weight_decay, "SGD: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 1 if self.momentum else 0


class Adam(Optimizer):
    """w -= lr m' / (sqrt(v') + eps), m' = m / (1 - beta1^t), v' = v / (1 - beta2^t), with running means m of
    g and v of g^2, g having weight_decay w added. Kingma and Ba 2015. Further keywords: `Optimizer`."""

    rule = "adam"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        super().__init__(**extras)

    def _hyper(self) -> dict[str, float]:
        name = type(self).__name__
        return {
            "lr": rate(self.lr, f"{name}: lr"),
            **checked_betas(self.betas, f"{name}: betas"),
            "eps": not_negative(self.eps, f"{name}: eps"),
            "weight_decay": not_negative(self.weight_decay, f"{name}: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 2


class AdamW(Adam):
    """Adam with the decay apart from the gradient: w -= lr weight_decay w, then Adam's step. Loshchilov and
    Hutter 2019. Further keywords: `Optimizer`."""

    rule = "adamw"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.01,
        **extras: Unpack[Extras],
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay=weight_decay, **extras)


class RMSprop(Optimizer):
    """w -= lr q with q = g / (sqrt(v) + eps), v the running mean of g^2 with decay alpha, g having
    weight_decay w added. Tieleman and Hinton 2012.

    momentum: w -= lr b with b = momentum b + q. centered: v - m^2 in v's place, m the running mean of g; at
    least 0, where rounding would make it negative. Further keywords: `Optimizer`."""

    rule = "rmsprop"

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        weight_decay: float = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        self.lr = lr
        self.alpha = alpha
        self.eps = eps
        self.momentum = momentum
        self.centered = centered
        self.weight_decay = weight_decay
        super().__init__(**extras)

    def _hyper(self) -> dict[str, float]:
        return {
            "lr": rate(self.lr, "RMSprop: lr"),
            "beta2": fraction(self.alpha, "RMSprop: alpha"),
            "eps": not_negative(self.eps, "RMSprop: eps"),
            "momentum": fraction(self.momentum, "RMSprop: momentum"),
            "centered": float(bool(self.centered)),
            "weight_decay": not_negative(self.weight_decay, "RMSprop: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 1 + bool(self.momentum) + bool(self.centered)


class Adagrad(Optimizer):
    """w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps), s the sum of all g^2, from
    initial_accumulator_value on, g having weight_decay w added. Duchi et al. 2011. Further keywords:
    `Optimizer`."""

    rule = "adagrad"

    def __init__(
        self,
        lr: float | Schedule = 0.01,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        weight_decay: float = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        self.lr = lr
        self.lr_decay = lr_decay
        self.initial_accumulator_value = initial_accumulator_value
        self.eps = eps
        self.weight_decay = weight_decay
        super().__init__(**extras)

    def _hyper(self) -> dict[str, float]:
        self._slot_start()
        return {
            "lr": rate(self.lr, "Adagrad: lr"),
            "lr_decay": not_negative(self.lr_decay, "Adagrad: lr_decay"),
            "eps": not_negative(self.eps, "Adagrad: eps"),
            "weight_decay": not_negative(self.weight_decay, "Adagrad: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 1

    def _slot_start(self) -> float:
        return not_negative(self.initial_accumulator_value, "Adagrad: initial_accumulator_value")


class Lion(Optimizer):
    """w -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), then m = beta2 m + (1 - beta2) g; sign(0) is
    0. Chen et al. 2023; their advice is a third to a tenth of AdamW's lr. Further keywords: `Optimizer`."""

    rule = "lion"

    def __init__(
        self,
        lr: float | Schedule = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        *,
        weight_decay: float = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        self.lr = lr
        self.betas = betas
        self.weight_decay = weight_decay
        super().__init__(**extras)

    def _hyper(self) -> dict[str, float]:
        return {
            "lr": rate(self.lr, "Lion: lr"),
            **checked_betas(self.betas, "Lion: betas"),
            "weight_decay": not_negative(self.weight_decay, "Lion: weight_decay"),
        }

    def _slot_count(self) -> int:
        return 1
