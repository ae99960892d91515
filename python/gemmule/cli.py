"""The command line: `gemmule train | evaluate | predict | info | bench | show-config`.

Exit status: 0; 1 where data, a model or the machine is at fault; 2 for a wrong command line; 130 after
Ctrl-C. Errors are one line on standard error.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, _command_train, _commands, activations
from ._arguments import count, delimiter, names, natural, positive, rate, share, table_path, widths
from ._command_tables import RULE
from ._precision import PRECISIONS
from .bench import options
from .errors import DeviceError, DivergenceError, DTypeError, FileError, ShapeError

PATIENCE = 10  # epochs
_FAULTS = (FileError, ShapeError, DTypeError, DeviceError, DivergenceError, OSError, MemoryError, ImportError)

_DATA = """\
DATA is one of
  digits        1,797 handwritten digits of 8 x 8 pixels, on board
  mnist         the four MNIST files, in the folder that --data-dir names
  FOLDER        any folder of IDX files named like MNIST's, plain or .gz
  FILE.npz      np.savez(FILE, X=X, y=y): X (N, ...), y labels, names or numbers
  FILE.csv      a table of numbers and text, with names in its first line (.csv, .tsv, .tab, .txt)"""

_TOP = """\
Train, score and use neural networks on NumPy data, compiled.

first steps:
  gemmule train digits --out digits.safetensors
  gemmule evaluate digits.safetensors digits
  gemmule predict digits.safetensors digits --limit 5"""

_TRAIN = f"""\
Train a network, of dense layers or convolutional, and score it on rows that it never saw.

{_DATA}

Held out are the files' own test rows (mnist, IDX folders), else a fifth, seeded and stratified by class.
Labels (integers, names) are classified by cross-entropy; other targets are fitted by mean squared error.
8-bit pixels are scaled to 0..1, other columns and targets to mean 0 and deviation 1 over the training rows.

Of a table --target names the column to learn: {RULE}.
Text becomes an input per category. Empty cells, NA, NaN, null and ? are missing: filled with the mean, and
marked. Columns that tell nothing (no or one value, an id) are dropped. What became of each is printed.

Ctrl-C ends training early and keeps the last complete step: --out and --plot are still written."""

_TRAIN_EXAMPLES = """\
examples:
  gemmule train digits
  gemmule train digits --hidden 32 --activation tanh --epochs 50 --plot digits.png
  gemmule train mnist --data-dir DIR --out mnist.safetensors
  gemmule train mnist --data-dir DIR --arch cnn --epochs 3 --schedule cosine --plot cnn.png
  gemmule train digits --arch cnn --crop 1
  gemmule train mnist --data-dir DIR --hidden 512,256 --dropout 0.25 --schedule one-cycle --lr 0.002 \\
    --epochs 6 --batch-size 128
  gemmule train table.npz --loss mse --optimizer sgd --lr 0.01
  gemmule train iris.csv --target species --early-stopping --out iris.safetensors"""

_EVALUATE = f"""\
Score a model. On the data it was trained from, only the rows held out then count, unless --all is given.

{_DATA}"""

_PREDICT = f"""\
Predict every row of DATA (of an IDX folder the test rows) and print or write one line per row.

{_DATA}
  FILE.npy      np.save(FILE, X): X alone"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line; help that keeps its line breaks."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"gemmule: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.command(args)
        sys.stdout.flush()
        return status
    except _commands.UsageError as error:
        print(f"gemmule: error: {error}", file=sys.stderr)
        return 2
    except _FAULTS as error:
        if isinstance(error, BrokenPipeError):  # `gemmule predict ... | head`: no one is left to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"gemmule: error: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gemmule: interrupted", file=sys.stderr)
        return 130


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gemmule", description=_TOP)
    parser.add_argument("--version", action="version", version=f"gemmule {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, command: Any, summary: str, description: str | None = None, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(name, help=summary, description=description or summary, epilog=epilog)
        sub.set_defaults(command=command)
        return sub

    train = add("train", _command_train.train, "train a network", description=_TRAIN, epilog=_TRAIN_EXAMPLES)
    _add_data(train)
    table = train.add_argument_group("tables")
    table.add_argument("--target", metavar="NAME", help="the column to learn")
    table.add_argument(
        "--task", choices=["classify", "regress"], help="default: by the kind of the target, see above"
    )
    table.add_argument("--drop", type=names, default=[], metavar="NAME,NAME", help="columns to leave out")
    _add_delimiter(table)
    network = train.add_argument_group("network")
    network.add_argument(
        "--arch", choices=["mlp", *_command_train.ARCHITECTURES], default="mlp",
        help="mlp: dense layers; for images cnn: two convolutions of 3 x 3 (gm.models.mnist_cnn), lenet5: "
        "LeNet-5, resnet20: ResNet-20 (default: mlp)",
    )  # fmt: skip
    network.add_argument(
        "--hidden", type=widths, metavar="N,N",
        help="of mlp: widths of the hidden layers, or 'none' for a linear model (default: 256,128)",
    )  # fmt: skip
    network.add_argument(
        "--activation", choices=activations.ELEMENTWISE, metavar="NAME",
        help="of the hidden layers (default: relu; lenet5: tanh): " + ", ".join(activations.ELEMENTWISE),
    )  # fmt: skip
    network.add_argument(
        "--dropout", type=rate, default=0.0, metavar="P",
        help="share of the units of hidden dense layers left out in training, 0 <= P < 1 (default: 0)",
    )  # fmt: skip

    training = train.add_argument_group("training")
    training.add_argument(
        "--loss", choices=_command_train.LOSSES, help="default: cross_entropy for labels, mse for numbers"
    )
    training.add_argument(
        "--optimizer", choices=sorted(_command_train.LEARNING_RATES), default="adam",
        help="default: adam; sgd has momentum 0.9",
    )  # fmt: skip
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in sorted(_command_train.LEARNING_RATES.items()))
    training.add_argument("--lr", type=positive, metavar="RATE", help=f"learning rate (default: {rates})")
    training.add_argument(
        "--schedule", choices=_command_train.SCHEDULES, default="constant",
        help="how the rate goes from there over the whole training: cosine falls to 0, one-cycle rises from "
        "a 25th of it and falls (default: constant)",
    )  # fmt: skip
    training.add_argument(
        "--epochs", type=count, metavar="N",
        help="default: 30, more below 1,000 training rows; 5 from 10,000 rows on",
    )  # fmt: skip
    training.add_argument(
        "--batch-size", type=count, metavar="N", help="default: 32; 64 from 10,000 training rows on"
    )
    training.add_argument(
        "--precision", choices=PRECISIONS, default="full",
        help="bf16: products of dense layers in training take their operands rounded to bfloat16, faster "
        "where the CPU has AVX512_BF16 (default: full)",
    )  # fmt: skip
    _add_augmentation(train)
    training.add_argument(
        "--early-stopping", type=count, nargs="?", const=PATIENCE, metavar="EPOCHS",
        help="stop after so many epochs without a lower held-out loss, and keep the best epoch's weights "
        f"(default: {PATIENCE}; the score is then that of rows that chose the epoch)",
    )  # fmt: skip
    training.add_argument(
        "--validation", type=share, metavar="SHARE",
        help="share of the rows to hold out (default: 0.2); not for data with test files of its own",
    )  # fmt: skip
    training.add_argument(
        "--seed", type=natural, default=0, metavar="N",
        help="of all that is drawn; the same seed gives the same network (default: 0)",
    )  # fmt: skip
    _add_threads(training)

    output = train.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FILE", help="write the model, as .safetensors")
    output.add_argument(
        "--plot", type=Path, metavar="FILE",
        help="write a picture of loss and accuracy, and of the first layer's filters if it has some (.png, "
        ".svg, .pdf; needs matplotlib)",
    )  # fmt: skip
    output.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="write the state of training after each epoch"
    )
    output.add_argument(
        "--resume", type=Path, metavar="FILE",
        help="go on from a checkpoint of the same command, as if it had not been interrupted",
    )  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="print the result alone")

    evaluate = add(
        "evaluate", _commands.evaluate, "score a model on held-out rows", description=_EVALUATE,
        epilog="example:\n  gemmule evaluate digits.safetensors digits",
    )  # fmt: skip
    _add_model(evaluate)
    _add_data(evaluate)
    evaluate.add_argument("--all", action="store_true", help="score every row, those trained on too")
    evaluate.add_argument("--target", metavar="NAME", help="of a table, the column to score against")
    _add_delimiter(evaluate)
    _add_threads(evaluate)

    predict = add(
        "predict", _commands.predict, "predict labels or numbers", description=_PREDICT,
        epilog="examples:\n  gemmule predict digits.safetensors digits --limit 5 --proba\n"
        "  gemmule predict digits.safetensors new.npy --out labels.csv",
    )  # fmt: skip
    _add_model(predict)
    _add_data(predict)
    predict.add_argument("--limit", type=count, metavar="N", help="the first N rows (default: all)")
    predict.add_argument("--proba", action="store_true", help="the probability of every class as well")
    predict.add_argument(
        "--out", type=table_path, metavar="FILE", help="write .csv or .npy (default: print as CSV)"
    )
    _add_delimiter(predict)
    _add_threads(predict)

    info = add(
        "info", _commands.info, "describe a model file: layers, loss, preprocessing, size",
        epilog="example:\n  gemmule info digits.safetensors",
    )  # fmt: skip
    _add_model(info)

    bench = add(
        "bench", _commands.bench, "compare speeds with those of NumPy, PyTorch, JAX and others",
        epilog="example:\n  gemmule bench gemm --set square,dense",
    )  # fmt: skip
    options.add_benchmarks(bench)

    add("show-config", _commands.show_config, "instruction set, threads and build in use")
    return parser


def _add_augmentation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "augmentation",
        "Images are changed at random, anew whenever they are trained on; those held out are not.\n"
        "Labels must stay true: a mirrored cat is a cat, a mirrored 3 is nothing.",
    )
    group.add_argument("--flip", action="store_true", help="exchange left and right of half of them")
    move = group.add_mutually_exclusive_group()
    move.add_argument(
        "--crop", type=count, metavar="N",
        help="pad by N pixels of 0 on each side, then cut back at a random place (4 is usual for 32 x 32)",
    )  # fmt: skip
    move.add_argument(
        "--shift", type=share, metavar="SHARE",
        help="the same move, by up to this share of the height and the width",
    )  # fmt: skip


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a .safetensors file of `gemmule train --out` or `net.save`"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="digits, mnist, a folder or a file (see above)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the mnist files are")


def _add_delimiter(parser: Any) -> None:
    parser.add_argument(
        "--delimiter", type=delimiter, metavar="C",
        help="of a table (default: found; comma, semicolon or tab)",
    )  # fmt: skip


def _add_threads(parser: Any) -> None:
    parser.add_argument(
        "--threads", type=count, metavar="N", help="default: physical cores, or OMP_NUM_THREADS"
    )
