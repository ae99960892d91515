"""Parameters: ndarray views into a network's flat buffers.

A `Block` is one `_core.Store`, a flat buffer for values and one for gradients, with its table of segments; a
`Segment` is one parameter's place in it. Networks that share a layer share its segments. State, which is
saved but not trained, has blocks of its own.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from .arrays import Array, Shape, real_array
from .errors import ShapeError
from .initializers import Initializer


class Parameter(np.ndarray[Any, Any]):
    """A view of one parameter: writing into it in place writes the network.

    What is computed from it, slices included, is a plain ndarray."""

    name: str
    _grad: Array | None

    def __array_finalize__(self, obj: object) -> None:
        self.name = ""
        self._grad = None

    @classmethod
    def _view(cls, value: Array, grad: Array, name: str) -> Self:
        parameter = value.view(cls)
        parameter._grad = grad
        parameter.name = name
        return parameter

    @property
    def grad(self) -> Array:
        """The gradient, a view of the same shape; `backward` adds to it. Assigning copies into place."""
        if self._grad is None:
            raise AttributeError("grad: this array is no longer a parameter")
        return self._grad

    @grad.setter
    def grad(self, value: ArrayLike) -> None:
        copy_into(self.grad, value, f"{self.name or 'parameter'}.grad")

    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out", ())
        if out:
            kwargs["out"] = tuple(_plain(array) for array in out)
        result = getattr(ufunc, method)(*(_plain(value) for value in inputs), **kwargs)
        # In-place arithmetic must give back the parameter itself.
        return out[0] if len(out) == 1 and out[0] is not None else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _without_orphans(super().__array_function__(func, types, args, kwargs))

    def __array_wrap__(self, array: Array, context: Any = None, return_scalar: bool = False, /) -> Any:
        plain = _plain(array)
        return plain[()] if return_scalar else plain

    def __getitem__(self, key: Any) -> Any:
        return _plain(self)[key]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)


def _plain(value: Any) -> Any:
    return np.ndarray.view(value, np.ndarray) if isinstance(value, Parameter) else value


def _without_orphans(result: Any) -> Any:
    """Plain arrays for what NumPy derived from a parameter; a parameter given as `out` stays one."""
    if isinstance(result, Parameter) and result._grad is None:
        return _plain(result)
    if type(result) in (list, tuple):
        return type(result)(_without_orphans(item) for item in result)
    return result


def _plain_method(name: str) -> Any:
    def method(self: Parameter, *args: Any, **kwargs: Any) -> Any:
        return getattr(_plain(self), name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = getattr(np.ndarray, name).__doc__
    return method


def _plain_property(name: str) -> property:
    return property(lambda self: getattr(_plain(self), name))


# The ndarray methods whose result NumPy would make a Parameter again.
for _name in (
    "__copy__ __deepcopy__ argmax argmin argpartition argsort astype byteswap choose clip compress conj copy "
    "cumprod cumsum diagonal dot flatten getfield nonzero ravel repeat reshape round searchsorted squeeze "
    "swapaxes take trace transpose view"
).split():
    setattr(Parameter, _name, _plain_method(_name))
for _name in ("T", "mT", "flat", "imag"):
    setattr(Parameter, _name, _plain_property(_name))


def copy_into(target: Array, value: ArrayLike, what: str) -> None:
    """Copy `value` into `target` after all checks; ShapeError where the shapes differ."""
    array = real_array(value, target.dtype.name, what)
    if array.shape != target.shape:
        raise ShapeError(f"{what} has shape {target.shape}; the value assigned has {array.shape}")
    target[...] = array


class Block:
    """The flat buffers that parameters built together share, and their lock."""

    def __init__(self, dtype: str, counts: Sequence[int]) -> None:
        self.dtype = dtype
        self.counts = tuple(counts)
        self.store = _core.Store(dtype, list(counts))
        self.offsets = self.store.offsets
        self.training = threading.Lock()  # held by the fit that trains here

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies carry the values; their gradients start at zero."""
        return _restore_block, (self.dtype, self.counts, np.array(self.store.values))


def _restore_block(dtype: str, counts: tuple[int, ...], values: Array) -> Block:
    block = Block(dtype, counts)
    block.store.values[...] = values
    return block


class Segment:
    """One parameter, or one array of state: declared with name, shape and initializer, then placed in a
    block."""

    def __init__(self, name: str, shape: Shape, init: Initializer, is_state: bool = False) -> None:
        self.name = name
        self.shape = shape
        self.init = init
        self.is_state = is_state
        self.block: Block | None = None
        self.index = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def placed(self) -> Block:
        """The block; RuntimeError where the network is not built yet."""
        if self.block is None:
            raise RuntimeError(f"parameter {self.name!r} has no memory yet: its network is not built")
        return self.block

    @property
    def span(self) -> tuple[int, int]:
        begin = self.placed.offsets[self.index]
        return begin, begin + self.size

    @property
    def values(self) -> Array:
        """Its values, a view. (Where a parameter has its gradient, state has what a step moves it to.)"""
        begin, end = self.span
        return self.placed.store.values[begin:end].reshape(self.shape)

    def view(self, name: str | None = None) -> Parameter:
        """The parameter with its gradient."""
        begin, end = self.span
        grad = self.placed.store.grads[begin:end].reshape(self.shape)
        return Parameter._view(self.values, grad, name or self.name)

    def assign(self, value: ArrayLike) -> None:
        copy_into(self.values, value, self.name)
