"""The command line on images: architectures, refusals, models made in Python, the picture of filters."""

from pathlib import Path

import numpy as np
import pytest
from commands import Capture, accuracy, refused, run

import gemmule as gm


def test_digits_by_convolution(capsys: Capture, tmp_path: Path) -> None:
    """Trained, kept, scored on the rows held out, and predicted from rows and from images."""
    path = str(tmp_path / "cnn.safetensors")
    out, _ = run(
        capsys, "train", "digits", "--arch", "cnn", "--epochs", "4", "--dropout", "0.2", "--out", path
    )
    assert "Conv2d(1, 32, 3, relu)" in out and "(N, 6, 6, 32)" in out and "Dropout(0.2)" in out
    assert accuracy(out) > 95
    scored, _ = run(capsys, "evaluate", path, "digits")
    assert accuracy(scored) == accuracy(out) and "359 rows" in scored
    rows, _ = run(capsys, "predict", path, "digits", "--limit", "20")
    images = tmp_path / "images.npy"
    np.save(images, gm.datasets.digits(scale=False, as_images=True)[0])
    assert run(capsys, "predict", path, str(images), "--limit", "20")[0] == rows
    info, _ = run(capsys, "info", path)
    assert "input (N, 8, 8, 1)" in info


def test_digits_by_resnet20(capsys: Capture, tmp_path: Path) -> None:
    path = str(tmp_path / "resnet20.safetensors")
    out, _ = run(capsys, "train", "digits", "--arch", "resnet20", "--epochs", "2", "--out", path)
    assert "Residual(activation=relu)" in out and "BatchNorm(64)" in out
    assert accuracy(out) > 80
    scored, _ = run(capsys, "evaluate", path, "digits")
    assert accuracy(scored) == accuracy(out)


def test_bytes_of_an_archive(capsys: Capture, tmp_path: Path) -> None:
    """Images (N, H, W, C) of bytes, which are scaled on the way."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    X = rng.integers(0, 100, (200, 8, 7, 3), dtype=np.uint8)
    X[:, :, :, 1] += (150 * y).astype(np.uint8)[:, None, None]
    path = str(tmp_path / "colours.npz")
    np.savez(path, X=X, y=y)
    out, _ = run(capsys, "train", path, "--arch", "cnn", "--activation", "elu", "--epochs", "3")
    assert "Conv2d(3, 32, 3, elu)" in out
    assert accuracy(out) == 100


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_models_made_in_python(capsys: Capture, tmp_path: Path, layout: str) -> None:
    """Of either layout, on images of either."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 6, 5, 3)).astype(np.float32), rng.integers(0, 3, 60)
    turned = np.moveaxis(X, 3, 1)
    net = gm.Network([gm.Conv2d(3, 4, 3, "relu"), gm.Flatten(), gm.Dense(None, 3)], rng=0, layout=layout)
    given = X if layout == "channels_last" else turned
    net.fit(given, y, loss="cross_entropy", epochs=1)
    path = str(tmp_path / "net.safetensors")
    net.save(path)
    right = net.evaluate(given, y)["accuracy"]
    for name, images in [("last", X), *([("first", turned)] if layout == "channels_first" else [])]:
        archive = str(tmp_path / f"{name}.npz")
        np.savez(archive, X=images, y=y)
        out, _ = run(capsys, "evaluate", path, archive)
        assert accuracy(out) == pytest.approx(100 * right, abs=0.01)


@pytest.mark.parametrize("arch", ["mlp", "cnn"])
def test_augmentation(capsys: Capture, tmp_path: Path, arch: str) -> None:
    """Dense layers take images then, too; a model is scored on images as they are; a checkpoint knows it."""
    path, checkpoint = str(tmp_path / "net.safetensors"), str(tmp_path / "checkpoint")
    command = ["train", "digits", "--arch", arch, "--epochs", "12", "--crop", "1"]
    out, _ = run(capsys, *command, "--out", path, "--checkpoint", checkpoint)
    assert accuracy(out) > 90
    scored, _ = run(capsys, "evaluate", path, "digits")
    assert accuracy(scored) == accuracy(out)
    assert gm.load(path).input_shape == (8, 8, 1)
    run(capsys, *command, "--resume", checkpoint)
    refused(
        capsys, *command, "--flip", "--resume", checkpoint, status=1, match="written with augment .*this fit"
    )


def test_augmentations_that_are_refused(capsys: Capture, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X=np.ones((20, 12)), y=np.arange(20) % 2)
    rows = str(tmp_path / "rows.npz")
    for option in (["--flip"], ["--crop", "1"], ["--shift", "0.1"]):
        refused(
            capsys, "train", rows, *option, status=2, match=f"{option[0]} is for images; .* rows of numbers"
        )
    refused(
        capsys, "train", "digits", "--crop", "8", status=2, match="--crop 8 would leave nothing of .* 8 x 8"
    )
    for wrong in (["--crop", "0"], ["--crop", "1.5"], ["--shift", "2"], ["--crop", "1", "--shift", "0.1"]):
        refused(capsys, "train", "digits", *wrong, status=2, match=wrong[-2])


def test_what_is_refused(capsys: Capture, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X=np.ones((20, 12)), y=np.arange(20) % 2)
    rows = str(tmp_path / "rows.npz")
    refused(
        capsys, "train", rows, "--arch", "cnn", status=2, match="--arch cnn is for images; .* rows of numbers"
    )
    refused(
        capsys,
        "train",
        "digits",
        "--arch",
        "cnn",
        "--hidden",
        "3",
        status=2,
        match="--hidden goes with --arch mlp",
    )
    refused(
        capsys, "train", "digits", "--arch", "lenet5", status=2,
        match=r"--arch lenet5 does not take images of shape \(8, 8, 1\): Conv2d: kernel \(5, 5\) spans",
    )  # fmt: skip
    refused(capsys, "train", "digits", "--arch", "resnet", status=2, match="resnet")
    for option in (("--activation", "tanh"), ("--dropout", "0.5")):
        refused(
            capsys, "train", "digits", "--arch", "resnet20", *option, status=2,
            match=f"{option[0]} does not go with --arch resnet20",
        )  # fmt: skip
    refused(
        capsys, "train", "digits", "--arch", "resnet20", "--hidden", "3", status=2, match="--hidden goes with"
    )


def test_the_picture_has_the_filters(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    from gemmule import plot

    drawn = []
    mosaic = plot._mosaic
    monkeypatch.setattr(plot, "_mosaic", lambda weight: (drawn.append(weight.shape), mosaic(weight))[1])
    path = tmp_path / "curves.png"
    for arch, shapes in [("cnn", [(32, 3, 3, 1)]), ("mlp", [])]:
        drawn.clear()
        out, _ = run(capsys, "train", "digits", "--arch", arch, "--epochs", "1", "--plot", str(path))
        assert f"wrote {path}" in out
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert drawn == shapes


@pytest.mark.slow
def test_mnist_by_lenet5(capsys: Capture, shared_data: Path) -> None:
    folder = shared_data / "mnist"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/mnist")
    out, _ = run(
        capsys, "train", "mnist", "--data-dir", str(folder), "--arch", "lenet5", "--epochs", "5", "--quiet"
    )
    assert accuracy(out) > 98
