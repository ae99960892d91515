"""The safetensors format, read and written with the standard library and NumPy.

    u64 little-endian n | n bytes of JSON, padded with spaces | packed row-major little-endian data

The JSON maps names to {dtype, shape, data_offsets} and `__metadata__` to strings. A file is a stranger's
word: every claim in it is checked against the file's size before memory is asked for, and nothing in it is
executed. Format: https://huggingface.co/docs/safetensors
"""

import errno
import io
import itertools
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DTypeError, FileError

HEADER_LIMIT = 100_000_000  # bytes; the cap of the reference implementation
_ALIGNMENT = 8  # of the data that follows the header, so that a reader may map it

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# NumPy has no bfloat16: its bits are read, then widened to float32.
_STORED: dict[str, np.dtype[Any]] = {**_DTYPES, "BF16": np.dtype("<u2")}

_FOREIGN = (
    (b"\x80", "a pickle (a PyTorch or joblib file?)"),
    (b"PK\x03\x04", "a zip archive (a PyTorch file or .npz?)"),
    (b"\x93NUMPY", "a .npy file"),
    (b"\x89HDF", "an HDF5 file (a Keras model?)"),
)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of a file. BF16 becomes float32; every array is the caller's own.

    FileError where the file is malformed, truncated or of another format; FileNotFoundError where there is
    none."""
    path = Path(path)
    _require_regular(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, data_start = _read_header(path, file, size)
        metadata = _checked_metadata(path, header.pop("__metadata__", {}))
        layout = {name: _checked_entry(path, name, entry) for name, entry in header.items()}
        _check_coverage(path, {name: span for name, (_, _, span) in layout.items()}, size - data_start)
        tensors = {}
        for name, (dtype, shape, (begin, _)) in layout.items():
            file.seek(data_start + begin)
            tensors[name] = _read_tensor(path, file, name, dtype, shape)
    return tensors, metadata


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, ArrayLike], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file whole or not at all: to a temporary one beside it, flushed to disk, then renamed over
    `path`.

    Whatever goes wrong, an older file stays as it was; who has it mapped keeps reading the old content. A
    process killed half-way leaves a stray `.gemmule-*.tmp`. Arrays of any strides and byte order; DTypeError
    for types that the format lacks."""
    arrays = {name: _storable(name, value) for name, value in tensors.items()}
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # widest first: all stay aligned
    header = _encode_header(arrays, order, metadata or {})

    target = Path(os.path.realpath(path))  # through a link, to the file it names
    if target.exists():
        _require_regular(target)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder to write into", str(path))
    temporary = target.parent / f".gemmule-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(header)
            for name in order:
                file.write(arrays[name].reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


# -- reading -------------------------------------------------------------------------------------------------


def _read_header(path: Path, file: io.BufferedReader, size: int) -> tuple[dict[str, Any], int]:
    """The JSON object and the offset where data begins."""
    head = file.read(9)
    if len(head) < 9:
        _refuse(path, head, f"its {size} bytes are too few to be a safetensors file")
    length = int.from_bytes(head[:8], "little")
    if length > HEADER_LIMIT:
        _refuse(path, head, f"the header claims {length} bytes, more than the {HEADER_LIMIT} allowed")
    if 8 + length > size:
        _refuse(
            path, head, f"the header claims {length} bytes, the file has {size - 8} after the length field"
        )
    if head[8:] != b"{":
        _refuse(path, head, "the header does not begin with '{'")
    text = head[8:] + file.read(length - 1)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: the header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise FileError(f"{path}: the header is not a JSON object")
    return header, 8 + length


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _checked_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileError(f"{path}: __metadata__ must map strings to strings")
    return metadata


def _checked_entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """(dtype, shape, (begin, end)) of one tensor, consistent with one another."""
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FileError(f"{where}: expected an object with dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _STORED:
        raise FileError(f"{where}: unknown dtype {str(dtype)[:40]!r}; known are {', '.join(_STORED)}")
    if not _is_sizes(shape) or len(shape) > 32:
        raise FileError(f"{where}: shape must be a list of at most 32 non-negative integers below 2**63")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileError(f"{where}: data_offsets must be two integers, begin <= end")
    begin, end = offsets
    itemsize = _STORED[dtype].itemsize
    # NumPy multiplies the other dimensions even where one is zero.
    if math.prod(dim for dim in shape if dim) * max(itemsize, 4) >= 2**63:
        raise FileError(f"{where}: shape {shape} overflows 64 bits")
    if math.prod(shape) * itemsize != end - begin:
        raise FileError(
            f"{where}: {dtype} of shape {shape} takes {math.prod(shape) * itemsize} bytes, "
            f"data_offsets span {end - begin}"
        )
    return dtype, tuple(shape), (begin, end)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_coverage(path: Path, spans: dict[str, tuple[int, int]], size: int) -> None:
    """The tensors tile the data: no overlap, no hole, nothing beyond the end, nothing left over."""
    position = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise FileError(f"{path}: tensor {name!r} at [{begin}, {end}) {fault}")
        position = end
    if position != size:
        raise FileError(f"{path}: the header describes {position} bytes of data, the file holds {size}")


def _read_tensor(
    path: Path, file: io.BufferedReader, name: str, dtype: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    array = np.empty(shape, _STORED[dtype])
    view = array.reshape(-1).view(np.uint8).data
    while view:  # a read may return less than asked, above 2 GB it does
        count = file.readinto(view)
        if not count:
            raise FileError(f"{path}: tensor {name!r} ends early: the file was cut while it was read")
        view = view[count:]
    if dtype == "BF16":
        return np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
    native: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native


def _refuse(path: Path, head: bytes, fault: str) -> NoReturn:
    """FileError that says what the file seems to be instead, where its first bytes tell."""
    for magic, kind in _FOREIGN:
        if head.startswith(magic):
            raise FileError(
                f"{path}: this looks like {kind}, not a safetensors file. Only safetensors is read, "
                "for a pickle runs code when opened: save weights with safetensors.numpy.save_file instead"
            )
    raise FileError(f"{path}: not a safetensors file: {fault}")


def _require_regular(path: Path) -> None:
    if path.is_dir():
        raise FileError(f"{path}: a folder, not a file")
    if not path.is_file():
        path.stat()  # FileNotFoundError or PermissionError, from the one who knows
        raise FileError(f"{path}: not a regular file")


# -- writing -------------------------------------------------------------------------------------------------


def _storable(name: str, value: ArrayLike) -> NDArray[Any]:
    """Row-major and little-endian, a copy only where needed. (`ascontiguousarray` makes () into (1,).)"""
    if not isinstance(name, str) or name == "__metadata__":
        raise ValueError(f"safetensors: {name!r} cannot name a tensor")
    array = np.asarray(value)
    little = array.dtype.newbyteorder("<")
    if little not in _NAMES:
        raise DTypeError(f"safetensors: tensor {name!r} is {array.dtype}; expected {', '.join(_DTYPES)}")
    return np.asarray(array, dtype=little, order="C")


def _encode_header(
    arrays: Mapping[str, NDArray[Any]], order: list[str], metadata: Mapping[str, str]
) -> bytes:
    if not all(isinstance(text, str) for text in itertools.chain(metadata.keys(), metadata.values())):
        raise TypeError("safetensors: metadata must map strings to strings")
    ends = list(itertools.accumulate((arrays[name].nbytes for name in order), initial=0))
    spans = dict(zip(order, itertools.pairwise(ends), strict=True))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for name, array in arrays.items():
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": spans[name]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"safetensors: a header of {len(text)} bytes exceeds the {HEADER_LIMIT} allowed")
    return len(text).to_bytes(8, "little") + text


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. Windows has no way to, and needs none: its rename is journalled."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
