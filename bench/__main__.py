"""The benchmarks' command line; `python -m bench --help`."""

import argparse
import shutil
import sys
from pathlib import Path

from . import gemm, train
from .harness import CEILING, compete
from .machine import describe, usable_cores
from .report import Unit, plot, print_machine, print_table, write_json


def main() -> None:
    """Measure, print the table, write what was asked for."""
    parser = _parser()
    arguments = parser.parse_args()
    if shutil.which(arguments.peer_python) is None:
        parser.error(f"--peer-python: no interpreter at {arguments.peer_python}")
    unit: Unit
    if arguments.benchmark == "gemm":
        unit = "GFLOP/s"
        contenders = gemm.contenders(arguments.peer_python, arguments.openblas_cores)
        cases = gemm.cases(
            arguments.sizes, arguments.dtypes, arguments.threads, arguments.statistic or "best"
        )
    else:
        unit = "ms"
        contenders = train.contenders(arguments.peer_python)
        try:
            cases = train.cases(
                arguments.optimizer, arguments.threads, arguments.data_dir, arguments.statistic or "median"
            )
        except FileNotFoundError as error:
            parser.error(f"--data-dir: no MNIST in IDX files there ({error})")
    machine = describe()
    print_machine(machine)
    if unit == "ms":
        print("FLOPs: 2 n_in n_out per sample for each of Z, dW and dX of a layer, no dX for the first")
        for label, flops in {case.label: case.task.flops for case in cases}.items():
            print(f"  {label + ':':<17} {flops / 1e9:.4g} GFLOP per call")
    labels = [contender.label for contender in contenders]
    names = [case.name for case in cases]
    outcomes = print_table(
        compete(cases, contenders, arguments.rounds, arguments.seconds), names, labels, unit
    )
    if arguments.json is not None:
        write_json(arguments.json, machine, outcomes)
    if arguments.plot is not None:
        plot(arguments.plot, machine, outcomes, labels, unit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="gemmule beside its peers, each in its own process, taking turns.",
        epilog=f"Only ratios of one run compare. The limit is the {CEILING.label} of the same rounds.",
    )
    commands = parser.add_subparsers(dest="benchmark", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=_positive, default=7, help="turns of each contender per case (7)")
    common.add_argument("--seconds", type=float, default=0.1, help="length of a turn, a call at least (0.1)")
    common.add_argument(
        "--statistic", choices=["best", "median"], help="of all calls (best for gemm, median for train)"
    )
    common.add_argument("--peer-python", default=sys.executable, help="where the peers live (this one)")
    common.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures")
    common.add_argument("--plot", type=Path, metavar="FILE", help="draw bars (needs matplotlib)")

    cores = usable_cores()
    command = commands.add_parser("gemm", parents=[common], help="square matrix products, in GFLOP/s")
    command.add_argument("--sizes", type=_numbers, default=[256, 512, 1024, 2048], help="(256,512,1024,2048)")
    command.add_argument("--dtypes", type=_dtypes, default=["float32", "float64"], help="(float32,float64)")
    command.add_argument("--threads", type=_numbers, default=sorted({1, cores}), help=f"(1,{cores})")
    command.add_argument(
        "--openblas-cores",
        type=_names,
        default=gemm.runnable_openblas_cores(),
        help="core types forced on OpenBLAS, each a contender (those of SkylakeX,Haswell that this CPU runs)",
    )

    command = commands.add_parser(
        "train", parents=[common], help="an MNIST epoch and a tiny regression, in ms"
    )
    command.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    command.add_argument("--threads", type=_numbers, default=[cores], help=f"({cores})")
    command.add_argument("--data-dir", type=Path, help="MNIST's IDX files (normal deviates without)")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _dtypes(text: str) -> list[str]:
    names = _names(text)
    if not names or not set(names) <= {"float32", "float64"}:
        raise argparse.ArgumentTypeError("takes float32, float64 or both, separated by a comma")
    return names


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"takes numbers from 1 up, not {text!r}")
    return number


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
