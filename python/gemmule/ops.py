"""The kernels as functions on NumPy arrays.

Arrays of any strides and read-only ones are taken; float32 stays float32 where all are, any other real type
computes in float64; `matmul` alone keeps to NumPy's types. `out=` receives the result, in any layout, and may
overlap an input. Each function's backward takes the gradient of its result (dh, dz) and returns that of its
input.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core, activations, building, losses
from ._image_shapes import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    dropout2d,
    upsample2d,
    upsample2d_backward,
    zero_pad2d,
    zero_pad2d_backward,
)
from ._images import (
    avg_pool2d,
    avg_pool2d_backward,
    conv2d,
    conv2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from ._matmul import matmul
from ._norms import (
    batch_norm,
    batch_norm_backward,
    group_norm,
    group_norm_backward,
    layer_norm,
    layer_norm_backward,
)
from ._operands import KERNEL_TYPES, builtin, common, contiguous, into, require_position, require_shape
from ._packed import PackedMatrix, converted
from ._precision import checked_precision, precision_now
from ._transposed import conv_transpose2d, conv_transpose2d_backward
from .arrays import Array, any_array, fraction, real_number, unknown_name
from .errors import DTypeError, ShapeError

__all__ = [
    "PackedMatrix", "activation", "activation_backward", "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward", "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward",
    "conv2d", "conv2d_backward", "conv_transpose2d", "conv_transpose2d_backward", "dense", "dense_backward",
    "dropout", "dropout2d", "elu", "gelu", "gemm", "global_avg_pool2d", "global_avg_pool2d_backward",
    "group_norm", "group_norm_backward", "layer_norm", "layer_norm_backward", "leaky_relu", "loss",
    "loss_backward", "matmul", "max_pool2d", "max_pool2d_backward", "relu", "sigmoid", "silu", "softmax",
    "softmax_backward", "softplus", "sum_rows", "tanh", "upsample2d", "upsample2d_backward", "zero_pad2d",
    "zero_pad2d_backward",
]  # fmt: skip


# The activations by name, each with its usual slope.
_PLAIN = {
    name: activations.Builtin(name, activations.DEFAULT_SLOPES.get(name, 1.0))
    for name in activations.ELEMENTWISE
}


# -- products ------------------------------------------------------------------------------------------------


def gemm(
    a: ArrayLike,
    b: ArrayLike | PackedMatrix,
    out: Array | None = None,
    alpha: float = 1.0,
    beta: float = 0.0,
    trans_a: bool = False,
    trans_b: bool = False,
    bias: ArrayLike | None = None,
    activation: str = "identity",
    slope: float | None = None,
    precision: str = "full",
) -> Array:
    """out = act(alpha op(a) op(b) + beta out + bias), op transposing where trans_a, trans_b say so.

    op(a) (M, K), op(b) (K, N) or a PackedMatrix of it, bias (N,), out (M, N); beta other than 0 needs `out`,
    beta = 0 never reads it. precision: "bf16" rounds a and b to bfloat16 on the way and multiplies them with
    float32 sums, for float32 alone (else DTypeError) and not packed (else ValueError); its error is
    |C - AB| <= 2^-6.99 |A||B|, see docs/math.md."""
    plain = _PLAIN.get(activation) if type(activation) is str and slope is None else None
    if plain is not None and out is not None and precision == "full":
        done = _core.plain_gemm(a, b, out, alpha, beta, trans_a, trans_b, bias, plain.name, plain.slope)
        if done is not None:
            return done
    # The compiled function checks shapes, types and overlap; what it can take as it is goes straight to it.
    if not (
        type(a) is np.ndarray
        and type(b) is np.ndarray
        and a.dtype is b.dtype in KERNEL_TYPES
        and (bias is None or (type(bias) is np.ndarray and bias.dtype is a.dtype))
    ):
        if isinstance(b, PackedMatrix):
            if checked_precision(precision, "gemm: precision") != "full":
                raise ValueError(f"gemm: precision {precision!r} of a PackedMatrix, which holds every bit")
            return _gemm_packed(a, b, out, alpha, beta, trans_a, trans_b, bias, builtin(activation, slope))
        if bias is None:
            a, b = common("gemm", a=a, b=b)
        else:
            a, b, bias = common("gemm", a=a, b=b, bias=bias)
    if type(alpha) is not float:
        alpha = real_number(alpha, "gemm: alpha")
    if type(beta) is not float:
        beta = real_number(beta, "gemm: beta")
    if out is not None and not isinstance(out, np.ndarray):
        raise DTypeError(f"gemm: out must be an array, not {type(out).__name__}")
    act = plain or builtin(activation, slope)
    if precision != "full":
        checked_precision(precision, "gemm: precision")
        if a.dtype != np.float32:
            raise DTypeError(f"gemm: precision 'bf16' takes float32 matrices, not {a.dtype}")
        precision = precision_now(precision)
    return _core.gemm(
        a, b, out, alpha, beta, bool(trans_a), bool(trans_b), bias, act.name, act.slope, precision
    )


def _gemm_packed(
    a: ArrayLike,
    b: PackedMatrix,
    out: Array | None,
    alpha: float,
    beta: float,
    trans_a: bool,
    trans_b: bool,
    bias: ArrayLike | None,
    act: activations.Builtin,
) -> Array:
    if trans_b:
        raise ValueError("gemm: trans_b of a PackedMatrix: pack the transpose, PackedMatrix(b, trans=True)")
    if out is not None and not isinstance(out, np.ndarray):
        raise DTypeError(f"gemm: out must be an array, not {type(out).__name__}")
    left = converted(a, b.dtype, "gemm: a")
    row = None if bias is None else converted(bias, b.dtype, "gemm: bias")
    alpha, beta = real_number(alpha, "gemm: alpha"), real_number(beta, "gemm: beta")
    return b._panels.gemm(left, out, alpha, beta, bool(trans_a), row, act.name, act.slope)


def dense(
    x: ArrayLike,
    weight: ArrayLike | PackedMatrix,
    bias: ArrayLike | None = None,
    activation: str = "identity",
    slope: float | None = None,
    out: Array | None = None,
) -> Array:
    """act(x W^T + b): x (N, n_in), bias (n_out,), weight (n_out, n_in) or PackedMatrix(weight, trans=True)
    -> (N, n_out)."""
    if isinstance(weight, PackedMatrix):
        x = any_array(x, "x")
        if x.ndim != 2 or x.shape[1] != weight.shape[0]:
            raise ShapeError(
                f"dense: x has shape {x.shape}; packed W^T {weight.shape} does not chain with it (weights "
                "are packed by PackedMatrix(weight, trans=True))"
            )
        return gemm(x, weight, out, bias=bias, activation=activation, slope=slope)
    x, weight = any_array(x, "x"), any_array(weight, "weight")
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ShapeError(f"dense: x has shape {x.shape}; weight {weight.shape} does not chain with it")
    return gemm(x, weight, out, trans_b=True, bias=bias, activation=activation, slope=slope)


def dense_backward(dz: ArrayLike, x: ArrayLike, weight: ArrayLike) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) = (dz W, dz^T x, column sums of dz): dz (N, n_out), x (N, n_in), weight (n_out,
    n_in)."""
    grad, data, matrix = common("dense_backward", dz=dz, x=x, weight=weight)
    if data.ndim != 2 or matrix.ndim != 2 or data.shape[1] != matrix.shape[1]:
        raise ShapeError(f"dense_backward: x {data.shape} and weight {matrix.shape} do not chain")
    require_shape("dense_backward", "dz", grad, (len(data), len(matrix)))
    return gemm(grad, matrix), gemm(grad, data, trans_a=True), sum_rows(grad)


def sum_rows(x: ArrayLike, out: Array | None = None) -> Array:
    """Sum over the first axis: (N, n) -> (n,)."""
    (array,) = contiguous("sum_rows", x=x)
    if array.ndim != 2:
        raise ShapeError(f"sum_rows: x has shape {array.shape}; it must be (N, n)")
    row = np.empty(array.shape[1], array.dtype)
    return into("sum_rows", out, row, lambda sums: _core.sum_rows(array, sums, False), array)


# -- activations ---------------------------------------------------------------------------------------------


def activation(z: ArrayLike, kind: str, slope: float | None = None, out: Array | None = None) -> Array:
    """h = f(z), elementwise; kinds and slopes as in `gemmule.activations`."""
    act = builtin(kind, slope)
    (array,) = contiguous(kind, z=z)
    return into(kind, out, array, lambda h: _core.activation(act.name, act.slope, array, h), array)


def activation_backward(
    dh: ArrayLike, z: ArrayLike, kind: str, slope: float | None = None, out: Array | None = None
) -> Array:
    """dz = dh f'(z), elementwise; dh and z of one shape."""
    act = builtin(kind, slope)
    grad, saved = contiguous(f"{kind}_backward", dh=dh, z=z)
    require_shape(f"{kind}_backward", "dh", grad, saved.shape)
    if not _core.activation_saves_input(act.name):
        saved = activation(saved, kind, slope)
    return into(
        f"{kind}_backward",
        out,
        grad,
        lambda dz: _core.activation_grad(act.name, act.slope, grad, saved, dz),
        grad,
        saved,
    )


def relu(z: ArrayLike, out: Array | None = None) -> Array:
    """max(z, 0)"""
    return activation(z, "relu", out=out)


def leaky_relu(z: ArrayLike, slope: float = 0.01, out: Array | None = None) -> Array:
    """z, and slope z below 0"""
    return activation(z, "leaky_relu", slope, out)


def elu(z: ArrayLike, slope: float = 1.0, out: Array | None = None) -> Array:
    """z, and slope (exp(z) - 1) below 0"""
    return activation(z, "elu", slope, out)


def gelu(z: ArrayLike, approximate: bool = False, out: Array | None = None) -> Array:
    """z Phi(z), by erf or, where `approximate`, by tanh"""
    return activation(z, "gelu_tanh" if approximate else "gelu", out=out)


def silu(z: ArrayLike, out: Array | None = None) -> Array:
    """z sigmoid(z)"""
    return activation(z, "silu", out=out)


def sigmoid(z: ArrayLike, slope: float = 1.0, out: Array | None = None) -> Array:
    """1 / (1 + exp(-slope z))"""
    return activation(z, "sigmoid", slope, out)


def tanh(z: ArrayLike, out: Array | None = None) -> Array:
    """tanh(z)"""
    return activation(z, "tanh", out=out)


def softplus(z: ArrayLike, out: Array | None = None) -> Array:
    """log(1 + exp(z))"""
    return activation(z, "softplus", out=out)


def softmax(z: ArrayLike, out: Array | None = None) -> Array:
    """exp(z_i) / sum_j exp(z_j) over the last axis, (..., n) -> (..., n)."""
    (array,) = contiguous("softmax", z=z)
    if array.ndim == 0:
        raise ShapeError("softmax: z is a single number; it needs an axis")
    return into("softmax", out, array, lambda h: _core.softmax(array, h), array)


def softmax_backward(dh: ArrayLike, h: ArrayLike, out: Array | None = None) -> Array:
    """dz = h (dh - sum_j dh_j h_j) from the softmax's output h, over the last axis."""
    grad, saved = contiguous("softmax_backward", dh=dh, h=h)
    if grad.ndim == 0:
        raise ShapeError("softmax_backward: dh is a single number; it needs an axis")
    require_shape("softmax_backward", "dh", grad, saved.shape)
    return into("softmax_backward", out, grad, lambda dz: _core.softmax_grad(grad, saved, dz), grad, saved)


def dropout(
    x: ArrayLike, rate: float, rng: Any, step: int = 0, layer: int = 0, out: Array | None = None
) -> Array:
    """x mask / (1 - rate), the mask drawn at (step, layer, sample, unit) of the Philox stream that `rng`, a
    seed, names.

    Its backward is the same call on the gradient. x (N, ...)."""
    rate = fraction(rate, "dropout: rate")
    require_position("dropout", step, layer)
    (array,) = contiguous("dropout", x=x)
    key = building.philox_key(rng)
    return into("dropout", out, array, lambda y: _core.dropout(array, y, rate, key, step, layer), array)


# -- losses --------------------------------------------------------------------------------------------------


def loss(prediction: ArrayLike, target: ArrayLike, kind: str) -> float:
    """Mean loss over samples; kinds, formulas and targets as in `gemmule.losses`, and
    cross_entropy_probabilities, which takes the output of a softmax."""
    parameter = _loss(kind).parameter
    pred, y = losses.arrays(kind, prediction, target)
    return _core.loss(kind, parameter, pred, y)


def loss_backward(prediction: ArrayLike, target: ArrayLike, kind: str, out: Array | None = None) -> Array:
    """The gradient of the mean loss with respect to the prediction."""
    parameter = _loss(kind).parameter
    pred, y = losses.arrays(kind, prediction, target)

    def write(grad: Array) -> None:
        _core.loss_grad(kind, parameter, pred, y, grad)

    return into(f"{kind}_backward", out, pred, write, pred, y)


# -- checks --------------------------------------------------------------------------------------------------


def _loss(kind: str) -> losses.Loss:
    """The loss that runs the kernel of this name, with its defaults."""
    if kind not in losses.KINDS:
        raise unknown_name("loss", kind, tuple(losses.KINDS))
    return losses.KINDS[kind]
