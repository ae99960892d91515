"""Muon: momentum made orthogonal by matrix products."""

import math
from typing import Unpack

from ..arrays import fraction, not_negative, real_number, unknown_name
from ..schedules import Schedule
from .base import Extras, Optimizer, checked_betas, rate

_ADJUSTMENTS = ("original", "match_rms_adamw")


class Muon(Optimizer):
    """Matrices by momentum that Newton-Schulz made nearly orthogonal, every other parameter by AdamW. Jordan
    et al. 2024.

        b = momentum b + (1 - momentum) g;   d = (1 - momentum) g + momentum b, without nesterov d = b
        x = d / max(|d|, eps);   ns_steps times  x = (A + B x x^T + C (x x^T)^2) x
        w = (1 - lr weight_decay) w - lr adjusted x

    A, B, C are `ns_coefficients`; a matrix of more rows than columns is taken as its transpose. Products are
    made in the network's own type (PyTorch's in bfloat16). adjust_lr_fn: how the rate follows a weight
    (n_out, n_in): "original" times sqrt(max(1, n_out / n_in)); "match_rms_adamw" times
    0.2 sqrt(max(n_out, n_in)), with which AdamW's rates suit. A parameter of more axes counts as a matrix
    (first, all others).

    adamw_ratio: AdamW's learning rate as a multiple of lr, so that both follow one schedule. adamw_betas,
    adamw_eps, adamw_weight_decay: its other settings. Further keywords: `Optimizer`."""

    rule = "muon"

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        *,
        weight_decay: float = 0.1,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        ns_steps: int = 5,
        eps: float = 1e-7,
        adjust_lr_fn: str = "original",
        adamw_ratio: float = 1.0,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: float = 0.0,
        **extras: Unpack[Extras],
    ) -> None:
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.ns_coefficients = ns_coefficients
        self.ns_steps = ns_steps
        self.eps = eps
        self.adjust_lr_fn = adjust_lr_fn
        self.adamw_ratio = adamw_ratio
        self.adamw_betas = adamw_betas
        self.adamw_eps = adamw_eps
        self.adamw_weight_decay = adamw_weight_decay
        super().__init__(**extras)

    def _hyper(self) -> dict[str, float]:
        a, b, c = self._coefficients()
        steps = real_number(self.ns_steps, "Muon: ns_steps")
        if not 1 <= steps < 100 or steps != int(steps):
            raise ValueError(f"Muon: ns_steps is {self.ns_steps}; it must be a whole number from 1 to 99")
        if self.adjust_lr_fn not in _ADJUSTMENTS:
            raise unknown_name("adjust_lr_fn", self.adjust_lr_fn, _ADJUSTMENTS)
        return {
            "lr": rate(self.lr, "Muon: lr"),
            "momentum": fraction(self.momentum, "Muon: momentum"),
            "nesterov": float(bool(self.nesterov)),
            "weight_decay": not_negative(self.weight_decay, "Muon: weight_decay"),
            "ns_a": a,
            "ns_b": b,
            "ns_c": c,
            "ns_steps": steps,
            "ns_eps": not_negative(self.eps, "Muon: eps"),
            "match_rms": float(self.adjust_lr_fn == "match_rms_adamw"),
            "vector_lr": not_negative(self.adamw_ratio, "Muon: adamw_ratio"),
            **checked_betas(self.adamw_betas, "Muon: adamw_betas"),
            "vector_eps": not_negative(self.adamw_eps, "Muon: adamw_eps"),
            "vector_decay": not_negative(self.adamw_weight_decay, "Muon: adamw_weight_decay"),
        }

    def _coefficients(self) -> list[float]:
        try:
            given = tuple(self.ns_coefficients)
        except TypeError:
            given = ()
        if len(given) != 3:
            raise ValueError(f"Muon: ns_coefficients is {self.ns_coefficients!r}; it must hold three numbers")
        numbers = [real_number(number, "Muon: ns_coefficients") for number in given]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"Muon: ns_coefficients is {self.ns_coefficients!r}; they must be finite")
        return numbers

    def _slot_count(self) -> int:
        return 2  # AdamW's; of a matrix the momentum, and the direction while a step is made

    def _takes_matrices(self) -> bool:
        return True
