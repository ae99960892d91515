"""What `gemmule bench` does: a function for each of its commands, which takes the parsed arguments and
returns the exit status."""

import argparse
import shutil
from collections.abc import Sequence

from .._commands import UsageError, check_outputs
from . import gemm as products
from . import picture
from . import train as training
from .harness import Contender, compete
from .machine import ceilings, describe, usable_cores
from .outcome import Case, Statistic
from .report import print_head, print_table, print_versions
from .results import Results, Unit
from .summary import print_summary, summarize, worst


def gemm(args: argparse.Namespace) -> int:
    """Matrix products: squares of given sizes, or shape sets, whose worst cases are measured again."""
    _check(args)
    if args.quick and args.sets is None:
        raise UsageError("--quick goes with --set")
    if args.dtypes and args.sets is not None and "f64" in args.sets:
        raise UsageError("--dtypes: the set f64 is float64 by itself; name it in a run of its own")
    threads = args.threads or sorted({1, usable_cores()})
    statistic: Statistic = args.statistic or "best"
    if args.bf16 and ("float64" in (args.dtypes or []) or "f64" in (args.sets or [])):
        raise UsageError("--bf16 is for float32")
    if args.sets is None:
        both = ["float32"] if args.bf16 else ["float32", "float64"]
        sizes, dtypes = args.sizes or [256, 512, 1024, 2048], args.dtypes or both
        cases = products.square_cases(sizes, dtypes, threads, statistic)
    else:
        cases = products.set_cases(args.sets, args.dtypes or ["float32"], threads, statistic, args.quick)
    forced = products.best_openblas_core() if args.openblas_cores is None else args.openblas_cores
    contenders = products.contenders(args.peer_python, forced)
    if args.bf16:
        cases, contenders = products.in_bf16(cases), products.bf16_contenders(args.peer_python)
    rounds = args.rounds or (2 if args.quick else 5)
    results = _measure(cases, contenders, rounds, args.seconds, "GFLOP/s")
    if args.sets is not None:
        again = [outcome.case for outcome in worst(results.outcomes)]
        if again:
            print("\nThe worst twentieth, measured again with twice the rounds:")
            retrial = compete(again, contenders, 2 * rounds, args.seconds)
            results.join(print_table(retrial, again, results.labels, results.unit))
    return _finish(args, results)


def train(args: argparse.Namespace) -> int:
    """Training of dense networks."""
    _check(args)
    threads = args.threads or [usable_cores()]
    try:
        cases = training.cases(args.optimizer, threads, args.data_dir, args.statistic or "median")
    except FileNotFoundError as error:
        raise UsageError(f"--data-dir: no MNIST in IDX files there ({error})") from error
    print("FLOPs: 2 n_in n_out per sample for each of Z, dW and dX of a layer, no dX for the first")
    for label, flops in {case.label: case.task.flops for case in cases}.items():
        print(f"  {label + ':':<17} {flops / 1e9:.4g} GFLOP per call")
    contenders = training.contenders(args.peer_python)
    return _finish(args, _measure(cases, contenders, args.rounds or 7, args.seconds, "ms"))


def show(args: argparse.Namespace) -> int:
    """What an earlier run measured."""
    check_outputs(args.plot)
    results = Results.read(args.results)
    print_head(results)
    print_table(
        results.outcomes, [outcome.case for outcome in results.outcomes], results.labels, results.unit
    )
    return _finish(args, results)


def _check(args: argparse.Namespace) -> None:
    check_outputs(args.plot, args.json)
    if shutil.which(args.peer_python) is None:
        raise UsageError(f"--peer-python: no interpreter at {args.peer_python}")


def _measure(
    cases: Sequence[Case], contenders: Sequence[Contender], rounds: int, seconds: float, unit: Unit
) -> Results:
    kinds = dict.fromkeys((case.task.dtype, case.task.threads) for case in cases)
    labels = [
        contender.label for contender in contenders if any(contender.takes(case.task) for case in cases)
    ]
    results = Results(unit, labels, describe(), ceilings(kinds))
    print_head(results)
    results.outcomes += print_table(compete(cases, contenders, rounds, seconds), cases, labels, unit)
    return results


def _finish(args: argparse.Namespace, results: Results) -> int:
    print_versions(results.outcomes)
    summary = summarize(results.outcomes)
    if summary:
        print_summary(summary)
    if getattr(args, "json", None) is not None:
        results.write(args.json)
        print(f"wrote {args.json}")
    if args.plot is not None:
        picture.save(args.plot, results)
        print(f"wrote {args.plot}")
    return 0
