"""The options of `gemmule bench`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .._arguments import count, positive
from . import shapes
from .networks import NETWORKS
from .tasks import CNN_SETS, DIRECTIONS, LAYER_SETS, OPTIMIZERS, TRAINING_SETS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_GEMM = """\
Time matrix products C = A B through the Python call, each library in its own process, taking turns.

Without --set: squares of --sizes. The sets:
  square   N x N x N from 16 to 4096, powers of two, their neighbours, primes
  dense    batches of 1 to 1000 x layers of 2 to 4096: Z = X W^T, dX = dZ W, dW = dZ^T X
  skinny   one dimension of 1 to 16
  f64      square, and dense at three batches, in float64
With a set, the worst twentieth is measured again, and ratios to the best peer are summed up."""

_GEMM_EXAMPLES = """\
examples:
  gemmule bench gemm --set square,dense --json gemm.json --plot gemm.png
  gemmule bench gemm --set dense --quick --threads 1
  gemmule bench gemm --sizes 100,1000 --dtypes float32 --peer-python ~/torch/bin/python"""

_TRAIN = """\
Train dense networks, and run them, each library in its own process, taking turns. The sets:
  mnist      an epoch of 784-256-128-10 on 60,000 samples
  small      2-10-1, 200 steps on 200 samples; 8-64-64-4, 640 steps of 32 samples
  wide       an epoch of four layers of 2048 at batch 256; gemmule in bfloat16 too
  inference  784-256-128-10, from an array of samples to one of outputs
All begin with the same weights, and must arrive at the same losses."""

_TRAIN_EXAMPLES = """\
examples:
  gemmule bench train --peer-python ~/peers/bin/python --json train.json --plot train.png
  gemmule bench train --set mnist --optimizer sgd,adam --batch 64,256
  gemmule bench train --set inference --threads 1,2"""

_LAYERS = """\
Time single layers on images, each library in its own process, taking turns. The sets:
  conv   twelve convolutions of networks in use, 1x1 to 7x7, stride 2, depthwise
  pool   the largest and the mean of 2x2 pixels
  norm   normalization of batches of images and of rows, as in training
Backward is the gradients of data and weights; of weights alone where images have 1 or 3 channels."""

_LAYERS_EXAMPLES = """\
examples:
  gemmule bench layers --peer-python ~/peers/bin/python --json layers.json --plot layers.png
  gemmule bench layers --set conv --direction forward --threads 1,2
  gemmule bench layers --quick"""

_CNN = """\
Train convolutional networks, and run them, each library in its own process, taking turns. The networks:
  mnist-cnn  28x28x1: conv 32 3x3, conv 64 3x3, max-pool 2, 128, 10
  lenet-5    28x28x1: conv 6 5x5, max-pool 2, conv 16 5x5, max-pool 2, 120, 84, 10
  resnet-20  32x32x3: nine residual blocks of 16, 32 and 64 filters, batch normalization
  resnet-18  64x64x3: eight residual blocks of 64 to 512 filters, batch normalization
All begin with the same weights, and must arrive at the same losses."""

_CNN_EXAMPLES = """\
examples:
  gemmule bench cnn --peer-python ~/peers/bin/python --json cnn.json --plot cnn.png
  gemmule bench cnn --set training --network mnist-cnn --batch 64,256
  gemmule bench cnn --set inference --threads 1,2"""


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
    """The benchmarks as commands of `parser`; `benchmark` tells which."""
    commands = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--statistic", choices=["best", "median"], help="of all calls (default: best; median for train)"
    )
    common.add_argument(
        "--peer-python", default=sys.executable, metavar="FILE",
        help="the interpreter that has the peers, and NumPy (default: this one)",
    )  # fmt: skip
    common.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures")
    _add_plot(common)

    _add_gemm(commands, common)
    _add_layers(commands, common)
    _add_train(commands, common)
    _add_cnn(commands, common)
    show = commands.add_parser(
        "show", help="print and draw a file that --json wrote",
        description="Print the tables of a file that --json wrote, and draw them.",
    )  # fmt: skip
    show.set_defaults(benchmark="show")
    show.add_argument("results", type=Path, metavar="FILE", help="of an earlier --json")
    _add_plot(show)


def _add_gemm(commands: "Commands", common: argparse.ArgumentParser) -> None:
    gemm = commands.add_parser(
        "gemm", parents=[common], help="matrix products, in GFLOP/s", description=_GEMM, epilog=_GEMM_EXAMPLES
    )
    gemm.set_defaults(benchmark="gemm")
    which = gemm.add_mutually_exclusive_group()
    which.add_argument(
        "--set",
        type=_among(shapes.NAMES),
        dest="sets",
        metavar="NAME,NAME",
        help=f"of {', '.join(shapes.NAMES)}",
    )
    which.add_argument("--sizes", type=_counts, metavar="N,N", help="default: 256,512,1024,2048")
    gemm.add_argument("--quick", action="store_true", help="every seventh shape of a set, fewer rounds")
    gemm.add_argument(
        "--dtypes", type=_among(("float32", "float64")), metavar="TYPE,TYPE",
        help="default: float32,float64; float32 with --set; f64 has its own",
    )  # fmt: skip
    gemm.add_argument(
        "--bf16", action="store_true",
        help="operands in bfloat16, beside float32 and PyTorch on tensors of bfloat16",
    )  # fmt: skip
    _add_threads(gemm, "1 and all cores")
    gemm.add_argument(
        "--openblas-cores", type=_names, metavar="NAME,NAME",
        help="core types forced on OpenBLAS, each a contender (default: the best that this CPU runs)",
    )  # fmt: skip
    _add_turns(gemm, "5; 2 with --quick", 0.01)


def _add_layers(commands: "Commands", common: argparse.ArgumentParser) -> None:
    layers = commands.add_parser(
        "layers", parents=[common], help="convolutions, pools and normalizations, in GFLOP/s",
        description=_LAYERS, epilog=_LAYERS_EXAMPLES,
    )  # fmt: skip
    layers.set_defaults(benchmark="layers")
    layers.add_argument(
        "--set", type=_among(LAYER_SETS), dest="sets", metavar="NAME,NAME",
        help=f"of {', '.join(LAYER_SETS)} (default: all)",
    )  # fmt: skip
    layers.add_argument(
        "--direction", type=_among(DIRECTIONS), dest="directions", metavar="NAME,NAME",
        help=f"of {', '.join(DIRECTIONS)} (default: both)",
    )  # fmt: skip
    layers.add_argument("--quick", action="store_true", help="five layers, fewer rounds, for a first look")
    _add_threads(layers, "all cores")
    _add_turns(layers, "5; 2 with --quick", 0.1)


def _add_train(commands: "Commands", common: argparse.ArgumentParser) -> None:
    train = commands.add_parser(
        "train", parents=[common], help="training and inference of dense networks, in ms",
        description=_TRAIN, epilog=_TRAIN_EXAMPLES,
    )  # fmt: skip
    train.set_defaults(benchmark="train")
    train.add_argument(
        "--set", type=_among(TRAINING_SETS), dest="sets", metavar="NAME,NAME",
        help=f"of {', '.join(TRAINING_SETS)} (default: all)",
    )  # fmt: skip
    train.add_argument(
        "--quick", action="store_true", help="fewer samples, cases and rounds, for a first look"
    )
    train.add_argument(
        "--optimizer", type=_among(OPTIMIZERS), dest="optimizers", metavar="NAME,NAME",
        help=f"of {', '.join(OPTIMIZERS)} (default: all for mnist; sgd, adam for small; sgd for wide)",
    )  # fmt: skip
    train.add_argument(
        "--batch", type=_counts, dest="batches", metavar="N,N",
        help="of mnist and inference (default: 16,64,256,1024 and 1,32,256,1024)",
    )  # fmt: skip
    train.add_argument(
        "--memory", choices=["some", "all", "none"],
        help="whose peak memory is measured: the MNIST epochs at batch 64, all cases, or none "
        "(default: some; none with --quick)",
    )  # fmt: skip
    _add_threads(train, "all cores")
    train.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="MNIST's IDX files (default: normal deviates)"
    )
    _add_turns(train, "5; 2 with --quick", 0.1)


def _add_cnn(commands: "Commands", common: argparse.ArgumentParser) -> None:
    cnn = commands.add_parser(
        "cnn", parents=[common], help="training and inference of convolutional networks, in images/s",
        description=_CNN, epilog=_CNN_EXAMPLES,
    )  # fmt: skip
    cnn.set_defaults(benchmark="cnn")
    cnn.add_argument(
        "--set", type=_among(CNN_SETS), dest="sets", metavar="NAME,NAME",
        help=f"of {', '.join(CNN_SETS)} (default: both)",
    )  # fmt: skip
    cnn.add_argument(
        "--network", type=_among(tuple(NETWORKS)), dest="networks", metavar="NAME,NAME",
        help=f"of {', '.join(NETWORKS)} (default: all)",
    )  # fmt: skip
    cnn.add_argument(
        "--batch", type=_counts, dest="batches", metavar="N,N", help="default: 64, that of each network"
    )
    cnn.add_argument("--quick", action="store_true", help="fewer images and rounds, for a first look")
    cnn.add_argument(
        "--memory", choices=["some", "all", "none"],
        help="whose peak memory is measured: training, all cases, or none (default: some; none with --quick)",
    )  # fmt: skip
    _add_threads(cnn, "all cores")
    _add_turns(cnn, "5; 2 with --quick", 0.1)


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the speeds (needs matplotlib)")


def _add_threads(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--threads", type=_counts, metavar="N,N", help=f"default: {default}")


def _add_turns(parser: argparse.ArgumentParser, rounds: str, seconds: float) -> None:
    parser.add_argument(
        "--rounds", type=count, metavar="N", help=f"turns of each contender per case (default: {rounds})"
    )
    parser.add_argument(
        "--seconds", type=positive, default=seconds, metavar="S",
        help=f"length of a turn, a call at least (default: {seconds})",
    )  # fmt: skip


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def _among(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A list of names, each of `known`."""
    return lambda text: _known(text, known)


def _known(text: str, known: tuple[str, ...]) -> list[str]:
    """The names in `text`, each once."""
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r}: expected one or several of {', '.join(known)}")
    return names
