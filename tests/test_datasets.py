"""Data files of every kind, good and bad, and splits that keep the classes in proportion."""

import contextlib
import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gemmule import DTypeError, FileError, ShapeError, datasets

Array = NDArray[Any]
IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: Array) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx_folder(folder: Path, mark: str = "-", suffix: str = "", **replaced: Array) -> dict[str, Array]:
    """Four small files as MNIST's; `suffix=".gz"` zips them."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images": rng.integers(0, 256, (30, 4, 5)).astype("u1"),
        "train-labels": (np.arange(30) % 3).astype("u1"),
        "t10k-images": rng.integers(0, 256, (10, 4, 5)).astype("u1"),
        "t10k-labels": (np.arange(10) % 3).astype("u1"),
    } | {name.replace("_", "-"): array for name, array in replaced.items()}
    for name, array in arrays.items():
        content = idx_bytes(array)
        ndim = 3 if "images" in name else 1
        path = folder / f"{name}{mark}idx{ndim}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    return arrays


# -- digits --------------------------------------------------------------------------------------------------


def test_digits_are_the_documented_ones() -> None:
    X, y = datasets.digits()
    assert X.shape == (1797, 64)
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    assert (X.min(), X.max()) == (0.0, 1.0)
    assert y.shape == (1797,)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    raw, _ = datasets.digits(scale=False)
    np.testing.assert_array_equal(raw, X * 16)
    images, _ = datasets.digits(as_images=True)
    np.testing.assert_array_equal(images.reshape(1797, 64), X)
    assert images.shape == (1797, 8, 8, 1)


def test_digits_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    expected = sklearn.load_digits()
    X, y = datasets.digits(scale=False)
    np.testing.assert_array_equal(X, expected.data)
    np.testing.assert_array_equal(y, expected.target)


# -- IDX -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", IDX_CODES)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_idx_type_plain_and_zipped(tmp_path: Path, dtype: str, zipped: bool) -> None:
    array = (np.arange(-12, 12).reshape(2, 3, 4) * 1.5).astype("i8").astype(dtype)
    content = idx_bytes(array)
    (tmp_path / "a").write_bytes(gzip.compress(content) if zipped else content)
    back = datasets.load_idx(tmp_path / "a")
    np.testing.assert_array_equal(back, array, strict=True)
    assert back.dtype.isnative
    assert back.flags.writeable


GOOD = idx_bytes(np.arange(6, dtype="u1").reshape(2, 3))
BAD_IDX = {
    "empty": b"",
    "three bytes": b"\0\0\x08",
    "wrong magic": b"\1" + GOOD[1:],
    "unknown type": b"\0\0\x0a" + GOOD[3:],
    "no dimensions": b"\0\0\x08\0",
    "sizes cut": GOOD[:9],
    "data cut": GOOD[:-1],
    "data left over": GOOD + b"x",
    "255 huge dimensions": b"\0\0\x08\xff" + b"\xff" * 4 * 255,
    "33 dimensions": b"\0\0\x08\x21" + b"\0\0\0\1" * 33 + b"x",
    "product over 64 bits": b"\0\0\x08\3" + b"\xff" * 12,
    "a pickle": pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", BAD_IDX)
def test_malformed_idx_is_refused(tmp_path: Path, case: str, zipped: bool) -> None:
    path = tmp_path / "bad"
    path.write_bytes(gzip.compress(BAD_IDX[case]) if zipped else BAD_IDX[case])
    with pytest.raises(FileError, match="bad"):
        datasets.load_idx(path)


def test_cut_and_corrupt_gzip_is_refused(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (50, 50)).astype("u1")
    content = bytearray(gzip.compress(idx_bytes(array)))
    (tmp_path / "cut").write_bytes(content[:-200])
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "flipped").write_bytes(content)
    for name in ("cut", "flipped"):
        with pytest.raises(FileError, match="gzip"):
            datasets.load_idx(tmp_path / name)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=st.sampled_from([b"", b"\0\0\x08", b"\x1f\x8b", b"\x1f\x8b\x08"]), tail=st.binary(max_size=60))
def test_any_bytes_are_an_idx_or_refused(tmp_path: Path, head: bytes, tail: bytes) -> None:
    (tmp_path / "any").write_bytes(head + tail)
    with contextlib.suppress(FileError):
        datasets.load_idx(tmp_path / "any")


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder_finds_every_spelling(tmp_path: Path, mark: str, suffix: str) -> None:
    arrays = write_idx_folder(tmp_path, mark, suffix)
    (X_train, y_train), (X_test, y_test) = datasets.idx_folder(tmp_path)
    for got, name in [(X_train, "train-images"), (X_test, "t10k-images")]:
        np.testing.assert_array_equal(got, arrays[name], strict=True)
    for got, name in [(y_train, "train-labels"), (y_test, "t10k-labels")]:
        np.testing.assert_array_equal(got, arrays[name])
        assert got.dtype == np.int64
    (X, _), _ = datasets.mnist(tmp_path)
    np.testing.assert_allclose(X, arrays["train-images"].reshape(30, 20) / 255, rtol=1e-6)
    assert X.dtype == np.float32
    assert datasets.mnist(tmp_path, as_images=True)[0][0].shape == (30, 4, 5, 1)


def test_idx_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"train images; looked for train-images-idx3-ubyte, .*\.gz"):
        datasets.idx_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        datasets.idx_folder(tmp_path / "absent")
    write_idx_folder(tmp_path, train_labels=np.zeros(29, "u1"))
    with pytest.raises(FileError, match="30 train images but 29 labels"):
        datasets.idx_folder(tmp_path)
    write_idx_folder(tmp_path, t10k_labels=np.zeros(10, "f4"))
    with pytest.raises(FileError, match="float32"):
        datasets.idx_folder(tmp_path)
    write_idx_folder(tmp_path, train_images=np.zeros(30, "u1"))
    with pytest.raises(FileError, match="height"):
        datasets.idx_folder(tmp_path)


def test_mnist_itself(shared_data: Path) -> None:
    (X_train, y_train), (X_test, y_test) = datasets.mnist(shared_data / "mnist")
    assert X_train.shape == (60_000, 784)
    assert X_test.shape == (10_000, 784)
    assert X_train.dtype == np.float32
    assert (X_train.min(), X_train.max()) == (0.0, 1.0)
    assert np.bincount(y_train)[:3].tolist() == [5923, 6742, 5958]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]


# -- .npz ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x_key", "y_key"), [("X", "y"), ("data", "target"), ("images", "labels")])
def test_npz_keys(tmp_path: Path, x_key: str, y_key: str) -> None:
    arrays: dict[str, Any] = {x_key: np.ones((3, 2)), y_key: np.array(["a", "b", "a"])}
    np.savez(tmp_path / "a.npz", **arrays)
    X, y = datasets.load_npz(tmp_path / "a.npz")
    assert X.shape == (3, 2)
    assert y.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"X": np.ones((3, 2))}, "no array called y"),
        ({"W": np.ones(3), "y": np.ones(3)}, "no array called X.*there are W, y"),
        ({"X": np.ones((3, 2)), "y": np.ones(4)}, "do not pair"),
        ({"X": np.ones(3), "y": np.ones(3)}, "do not pair"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, "do not pair"),
        ({"X": np.ones((3, 2), complex), "y": np.ones(3)}, "complex128"),
        ({"X": np.array([["a"]]), "y": np.ones(1)}, "<U1"),
        ({"X": np.ones((1, 2)), "y": np.array([object()])}, "pickle"),
    ],
)
def test_unusable_npz_is_refused(tmp_path: Path, arrays: dict[str, Any], match: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FileError, match=match):
        datasets.load_npz(tmp_path / "a.npz")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", X=np.ones((30, 20)), y=np.ones(30))
    np.save(tmp_path / "single.npy", np.ones(3))
    cases = {
        "empty": b"",
        "text": b"1,2,3\n" * 20,
        "cut": (tmp_path / "good.npz").read_bytes()[:-100],
        "pickle": pickle.dumps({"X": [1], "y": [2]}),
        "single": (tmp_path / "single.npy").read_bytes(),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=name):
            datasets.load_npz(tmp_path / name)
    with pytest.raises(FileError, match="folder"):
        datasets.load_npz(tmp_path)
    with pytest.raises(FileNotFoundError):
        datasets.load_npz(tmp_path / "absent.npz")


def test_npy(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6).reshape(3, 2))
    assert datasets.load_npy(path).tolist() == [[0, 1], [2, 3], [4, 5]]
    for bad in (np.ones(3), np.ones((0, 2)), np.array([["a"]]), np.array([[object()]])):
        np.save(path, bad)
        with pytest.raises(FileError, match=r"a\.npy"):
            datasets.load_npy(path)
    np.savez(tmp_path / "b.npz", X=np.ones((3, 2)))
    with pytest.raises(FileError, match="archive"):
        datasets.load_npy(tmp_path / "b.npz")


# -- splits --------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    y=st.lists(st.integers(-3, 6), min_size=2, max_size=200).map(np.array),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_split_is_a_stratified_partition(y: Array, fraction: float, seed: int) -> None:
    train, held = datasets.stratified_split(y, fraction, seed)
    assert sorted([*train, *held]) == list(range(len(y)))
    total = min(max(round(fraction * len(y)), 1), len(y) - 1)
    assert len(held) == total
    for label in np.unique(y):
        share = total * np.sum(y == label) / len(y)
        assert abs(np.sum(y[held] == label) - share) < 1
    again = datasets.stratified_split(y, fraction, np.random.default_rng(seed))
    np.testing.assert_array_equal(held, again[1])


def test_split_differs_by_seed_and_takes_names_and_numbers() -> None:
    y = np.repeat(np.array(["a", "b"]), 50)
    first, second = (datasets.stratified_split(y, 0.2, seed)[1] for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert np.unique(y[first], return_counts=True)[1].tolist() == [10, 10]
    for target in (np.linspace(0, 1, 100), np.eye(100)):
        train, held = datasets.stratified_split(target, 0.25, 0)
        assert (len(train), len(held)) == (75, 25)
        assert not np.array_equal(held, np.arange(25))


def test_split_of_arrays() -> None:
    X, y = datasets.digits()
    X_train, X_held, y_train, y_held = datasets.split(X, y, 0.2, rng=3)
    assert (len(X_train), len(X_held)) == (1438, 359)
    train, held = datasets.stratified_split(y, 0.2, 3)
    np.testing.assert_array_equal(X_train, X[train])
    np.testing.assert_array_equal(X_held, X[held])
    np.testing.assert_array_equal(np.concatenate([y_train, y_held]), y[np.concatenate([train, held])])


def test_impossible_splits_are_refused() -> None:
    y = np.arange(10)
    for fraction in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            datasets.stratified_split(y, fraction)
    with pytest.raises(ShapeError, match="two rows"):
        datasets.stratified_split(y[:1], 0.5)
    with pytest.raises(ShapeError, match="differ in rows"):
        datasets.split(np.ones((3, 2)), y)
    with pytest.raises(DTypeError, match="object"):
        datasets.split(np.array([object()] * 10), y)
