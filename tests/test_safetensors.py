"""The file format: round trips, other people's files, hostile files, and a save that is cut short."""

import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemmule import DTypeError, FileError, _safetensors

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def pack(header: Any, data: bytes = b"") -> bytes:
    """A file's bytes from a header (an object, or text, or raw bytes) and its data."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header)
    raw: bytes = header.encode() if isinstance(header, str) else header
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: Any = "F32", shape: Sequence[Any] = (2,), span: Sequence[int] = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


def refused(tmp_path: Path, content: bytes, match: str | None = None) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileError, match=match):
        _safetensors.read(path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# -- round trips ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back(tmp_path: Path, rng: np.random.Generator, dtype: str) -> None:
    tensors = {
        f"{shape}": (rng.normal(size=shape) * 50).astype("f8").astype(dtype)
        for shape in [(), (0,), (1,), (7,), (3, 5), (2, 0, 4), (2, 3, 4, 5)]
    }
    _safetensors.write(tmp_path / "a", tensors, {"note": "é ≤ ü"})
    back, metadata = _safetensors.read(tmp_path / "a")
    assert metadata == {"note": "é ≤ ü"}
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].dtype.isnative
        np.testing.assert_array_equal(back[name], array, strict=True)
        assert back[name].flags.writeable


def test_layout_does_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    a = rng.normal(size=(6, 8))
    tensors: dict[str, Any] = {
        "fortran": np.asfortranarray(a),
        "transposed": a.T,
        "strided": a[::2, 1::3],
        "reversed": a[::-1, ::-1],
        "broadcast": np.broadcast_to(a[:1], (4, 8)),
        "big-endian": a.astype(">f4"),
        "list": [[1, 2], [3, 4]],
    }
    _safetensors.write(tmp_path / "a", tensors)
    back, metadata = _safetensors.read(tmp_path / "a")
    assert metadata == {}
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)


def test_data_is_aligned_and_the_header_padded_with_spaces(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _safetensors.write(path, {"odd": np.zeros(3, np.int8), "wide": np.zeros(5)})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header["wide"]["data_offsets"] == [0, 40]  # the widest first
    assert content[8 + length - 1 : 8 + length] in (b"}", b" ")


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "a"
    path.write_bytes(pack({"w": entry("BF16", (4,), (0, 8))}, bits.tobytes()))
    back = _safetensors.read(path)[0]["w"]
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=2**-7)


def test_the_safetensors_package_reads_what_we_write(tmp_path: Path, rng: np.random.Generator) -> None:
    package = pytest.importorskip("safetensors.numpy")
    tensors = {dtype: (rng.normal(size=(3, 5)) * 9).astype(dtype).T for dtype in DTYPES}
    _safetensors.write(tmp_path / "a", tensors, {"k": "v"})
    back = package.load_file(tmp_path / "a")
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, strict=True)


def test_we_read_what_the_safetensors_package_writes(tmp_path: Path, rng: np.random.Generator) -> None:
    package = pytest.importorskip("safetensors.numpy")
    tensors = {dtype: (rng.normal(size=(3, 5)) * 9).astype(dtype) for dtype in DTYPES}
    package.save_file(tensors, tmp_path / "a", {"k": "v"})
    back, metadata = _safetensors.read(tmp_path / "a")
    assert metadata == {"k": "v"}
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, strict=True)


# -- what is refused -----------------------------------------------------------------------------------------

MALFORMED = {
    "empty": (b"", "too few"),
    "seven bytes": (b"\1" * 7, "too few"),
    "header over 100 MB": ((100_000_001).to_bytes(8, "little") + b"{}", "more than"),
    "header longer than the file": ((64).to_bytes(8, "little") + b"{}", "claims 64 bytes"),
    "header of 2**64 - 1": (b"\xff" * 8 + b"{}", "more than"),
    "an array": (pack("[1,2]"), "begin with"),
    "leading space": (pack(" {}"), "begin with"),
    "not utf-8": (pack(b'{"\xff":1}'), "valid JSON"),
    "broken json": (pack("{,}"), "valid JSON"),
    "NaN": (pack('{"a":NaN}'), "valid JSON"),
    "number of 5000 digits": (pack('{"a":' + "9" * 5000 + "}"), "valid JSON"),
    "nested too deep": (pack('{"a":' + "[" * 200_000 + "]" * 200_000 + "}"), "valid JSON"),
    "duplicate tensor": (pack('{"a":1,"a":2}'), "twice"),
    "duplicate inside": (pack('{"a":{"dtype":"F32","dtype":"F64"}}'), "twice"),
    "metadata not strings": (pack({"__metadata__": {"a": 1}}), "strings to strings"),
    "metadata a list": (pack({"__metadata__": []}), "strings to strings"),
    "entry a number": (pack({"a": 1}), "expected an object"),
    "entry lacks dtype": (pack({"a": {"shape": [], "data_offsets": [0, 0]}}), "expected an object"),
    "entry with more": (pack({"a": entry() | {"stride": 1}}, bytes(8)), "expected an object"),
    "unknown dtype": (pack({"a": entry("F128")}, bytes(8)), "unknown dtype"),
    "dtype a list": (pack({"a": entry([])}, bytes(8)), "unknown dtype"),
    "negative dimension": (pack({"a": entry(shape=(-2, -1))}, bytes(8)), "non-negative"),
    "boolean dimension": (pack({"a": entry(shape=(True, 2))}, bytes(8)), "non-negative"),
    "float dimension": (pack({"a": entry(shape=(2.0,))}, bytes(8)), "non-negative"),
    "33 dimensions": (pack({"a": entry(shape=(1,) * 33, span=(0, 4))}, bytes(4)), "at most 32"),
    "product wraps to 8 bytes": (pack({"a": entry(shape=(2**62 + 2, 4))}, bytes(8)), "overflows"),
    "huge beside zero": (pack({"a": entry(shape=(0, 2**40, 2**40), span=(0, 0))}), "overflows"),
    "offsets reversed": (pack({"a": entry(span=(8, 0))}, bytes(8)), "begin <= end"),
    "three offsets": (pack({"a": entry(span=(0, 8, 8))}, bytes(8)), "two integers"),
    "span too long": (pack({"a": entry(span=(0, 12))}, bytes(12)), "takes 8 bytes"),
    "beyond the end": (pack({"a": entry()}, bytes(7)), "the file holds 7"),
    "bytes left over": (pack({"a": entry()}, bytes(9)), "the file holds 9"),
    "data without tensors": (pack({}, bytes(1)), "the file holds 1"),
    "hole": (pack({"a": entry(), "b": entry(span=(12, 20))}, bytes(20)), "hole"),
    "hole at the front": (pack({"a": entry(span=(4, 12))}, bytes(12)), "hole"),
    "overlap": (pack({"a": entry(), "b": entry(span=(4, 12))}, bytes(12)), "overlaps"),
    "shared": (pack({"a": entry(), "b": entry()}, bytes(8)), "overlaps"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_file_is_refused(tmp_path: Path, case: str) -> None:
    refused(tmp_path, *MALFORMED[case])


def test_claims_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    tib = 2**40
    content = pack({"a": entry(shape=(tib // 4,), span=(0, tib))}, bytes(64))
    refused(tmp_path, content, "the file holds 64")


def test_truncation_anywhere_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    _safetensors.write(tmp_path / "a", {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=3)}, {"k": "v"})
    content = (tmp_path / "a").read_bytes()
    for length in range(len(content)):
        refused(tmp_path, content[:length])


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (66,))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_is_never_opened(tmp_path: Path, protocol: int) -> None:
    refused(tmp_path, pickle.dumps([Bomb(), "x" * 1000], protocol), "pickle.*safetensors")


def test_other_formats_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "torch.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    np.save(tmp_path / "w.npy", np.zeros(3))
    for name, kind in {"torch.pt": "zip archive", "w.npy": "npy"}.items():
        refused(tmp_path, (tmp_path / name).read_bytes(), kind)
    refused(tmp_path, b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5")


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        _safetensors.read(tmp_path / "absent")
    with pytest.raises(FileError, match="folder"):
        _safetensors.read(tmp_path)
    with pytest.raises(FileError, match="folder"):
        _safetensors.write(tmp_path, {})
    with pytest.raises(FileNotFoundError):
        _safetensors.write(tmp_path / "absent" / "a", {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
offsets = st.integers(-1, 40) | st.sampled_from([2**31, 2**63, 2**64])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "F4", ""]) | json_values,
        "shape": st.lists(st.integers(-1, 5) | st.sampled_from([2**32, 2**62]), max_size=4) | json_values,
        "data_offsets": st.lists(offsets, min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(
    st.text(max_size=3) | st.just("__metadata__"), entries | json_values, max_size=4
).map(pack)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.builds(bytes.__add__, headers, st.binary(max_size=40))
    | st.binary(max_size=80)
    | st.builds(pack, st.binary(max_size=60).map(b"{".__add__))
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    try:
        tensors, _ = _safetensors.read(path)
    except FileError:
        return
    assert sum(array.nbytes for array in tensors.values()) <= 2 * len(content)  # BF16 doubles


@pytest.mark.parametrize(
    ("value", "error"),
    [(np.array([object()]), DTypeError), (np.zeros(2, complex), DTypeError), (["a"], DTypeError)],
)
def test_types_without_a_place_are_refused_before_writing(
    tmp_path: Path, value: Any, error: type[Exception]
) -> None:
    path = tmp_path / "a"
    _safetensors.write(path, {"w": np.ones(3)})
    with pytest.raises(error, match="'bad'"):
        _safetensors.write(path, {"w": np.zeros(3), "bad": value})
    with pytest.raises(TypeError):
        _safetensors.write(path, {}, {"k": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="name a tensor"):
        _safetensors.write(path, {"__metadata__": np.zeros(1)})
    np.testing.assert_array_equal(_safetensors.read(path)[0]["w"], np.ones(3))
    assert os.listdir(tmp_path) == ["a"]


# -- saving, interrupted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a"
    _safetensors.write(path, {"w": np.ones(3)})

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        _safetensors.write(path, {"w": np.zeros(3)})
    np.testing.assert_array_equal(_safetensors.read(path)[0]["w"], np.ones(3))
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_kill_9_during_save_leaves_the_old_file_whole(tmp_path: Path, step: str) -> None:
    path = tmp_path / "a"
    _safetensors.write(path, {"w": np.ones(1000)})
    before = path.read_bytes()
    program = (
        "import os, signal, sys, numpy as np; from gemmule import _safetensors\n"
        f"os.{step} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "_safetensors.write(sys.argv[1], {'w': np.zeros(100_000)})"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_saving_over_a_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _safetensors.write(path, {"w": np.arange(1000.0)})
    offset = path.stat().st_size - 8000
    mapped = np.memmap(path, "<f8", "r", offset, (1000,))
    if os.name != "posix":
        pytest.skip("a mapped file cannot be replaced on this system")
    _safetensors.write(path, {"w": mapped[::-1] * 2})
    np.testing.assert_array_equal(_safetensors.read(path)[0]["w"], np.arange(1000.0)[::-1] * 2)
    np.testing.assert_array_equal(mapped, np.arange(1000.0))


@pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
def test_links_and_modes_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    _safetensors.write(path, {"w": np.ones(3)})
    path.chmod(0o640)
    link.symlink_to(path)
    _safetensors.write(link, {"w": np.zeros(3)})
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    np.testing.assert_array_equal(_safetensors.read(path)[0]["w"], np.zeros(3))
    with pytest.raises(FileError, match="regular"):
        _safetensors.write(Path(os.devnull), {})
