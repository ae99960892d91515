"""What gemmule raises: five classes on the built-in kinds, so `except ValueError` works as everywhere."""


class ShapeError(ValueError):
    """Shapes or sizes do not fit together."""


class DTypeError(TypeError):
    """An array is of a type that has no place here (object, complex, string ...)."""


class FileError(ValueError):
    """A file is malformed, truncated, hostile or of another format."""


class DeviceError(RuntimeError):
    """The machine lacks what was asked for: an ISA, a GPU, its memory."""


class DivergenceError(ArithmeticError):
    """The loss, a gradient or an update stopped being finite."""
