"""What `gemmule bench` does: a function for each of its commands, which takes the parsed arguments and
returns the exit status."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from itertools import chain

from .._commands import UsageError, check_outputs
from . import cnn as networks
from . import gemm as products
from . import layers as single_layers
from . import picture
from . import train as training
from .harness import Contender, compete, measure_memory
from .machine import ceilings, describe, usable_cores
from .outcome import Case, Statistic
from .report import print_head, print_memory, print_shares, print_table, print_versions
from .results import Results, Unit
from .summary import print_summary, summarize, worst
from .tasks import CNN_SETS, DIRECTIONS, LAYER_SETS, TRAINING_SETS, Infer, Train


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
        _measure_worst_again(results, contenders, 2 * rounds, args.seconds)
    return _finish(args, results)


def layers(args: argparse.Namespace) -> int:
    """Convolutions and pools: a table per set and direction, whose worst cases are measured again."""
    _check(args)
    threads = args.threads or [usable_cores()]
    directions = args.directions or DIRECTIONS
    cases = single_layers.cases(
        args.sets or LAYER_SETS, directions, threads, args.statistic or "best", args.quick
    )
    contenders = single_layers.contenders(args.peer_python)
    rounds = args.rounds or (2 if args.quick else 5)
    results = _measure(cases, contenders, rounds, args.seconds, "GFLOP/s")
    if not args.quick:
        _measure_worst_again(results, contenders, 2 * rounds, args.seconds)
    return _finish(args, results)


def cnn(args: argparse.Namespace) -> int:
    """Training and inference of convolutional networks: a table of each, and the peaks of memory."""
    _check(args)
    threads = args.threads or [usable_cores()]
    choice = networks.Choice(args.networks, args.batches, args.quick)
    statistic: Statistic = args.statistic or "median"
    sets = [networks.cases([name], choice, threads, statistic) for name in args.sets or CNN_SETS]
    print("FLOPs: 2 per multiply-add, padding included, of Z, dW and dX of a layer, no dX for the first")
    for line in dict.fromkeys(map(networks.work, chain(*sets))):
        print(f"  {line}")
    contenders = networks.contenders(args.peer_python)
    return _run_sets(args, sets, contenders, "images/s", networks.measures_memory)


def train(args: argparse.Namespace) -> int:
    """Training and inference of dense networks: a table per set, and the peaks of memory."""
    _check(args)
    threads = args.threads or [usable_cores()]
    choice = training.Choice(args.optimizers, args.batches, args.data_dir, args.quick)
    statistic: Statistic = args.statistic or "median"
    try:
        sets = [training.cases(name, choice, threads, statistic) for name in args.sets or TRAINING_SETS]
    except FileNotFoundError as error:
        raise UsageError(f"--data-dir: no MNIST in IDX files there ({error})") from error
    print("FLOPs: 2 n_in n_out per sample for each of Z, dW and dX of a layer, no dX for the first")
    for label, flops in {_work(case): case.task.flops for case in chain(*sets)}.items():
        print(f"  {label + ':':<39} {flops / 1e9:.4g} GFLOP per call")
    contenders = training.contenders(args.peer_python)
    return _run_sets(args, sets, contenders, "ms", training.measures_memory)


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
    results = _start(cases, contenders, unit)
    results.outcomes += print_table(compete(cases, contenders, rounds, seconds), cases, results.labels, unit)
    return results


def _measure_worst_again(
    results: Results, contenders: Sequence[Contender], rounds: int, seconds: float
) -> None:
    again = [outcome.case for outcome in worst(results.outcomes)]
    if again:
        print("\nThe worst twentieth, measured again with twice the rounds:")
        retrial = compete(again, contenders, rounds, seconds)
        results.join(print_table(retrial, again, results.labels, results.unit))


def _run_sets(
    args: argparse.Namespace,
    sets: Sequence[Sequence[Case]],
    contenders: Sequence[Contender],
    unit: Unit,
    measures_memory: Callable[[Case], bool],
) -> int:
    """A table per set, then the peaks of memory, of `some` cases those that `measures_memory` tells."""
    results = _start([*chain(*sets)], contenders, unit)
    rounds = args.rounds or (2 if args.quick else 5)
    for cases in sets:
        labels = _taking(contenders, cases)
        results.outcomes += print_table(compete(cases, contenders, rounds, args.seconds), cases, labels, unit)
    memory = args.memory or ("none" if args.quick else "some")
    for outcome in results.outcomes:
        if memory == "all" or (memory == "some" and measures_memory(outcome.case)):
            measure_memory(outcome, contenders)
    return _finish(args, results)


def _start(cases: Sequence[Case], contenders: Sequence[Contender], unit: Unit) -> Results:
    """Without outcomes yet; the machine is printed."""
    kinds = dict.fromkeys((case.task.dtype, case.task.threads) for case in cases)
    results = Results(unit, _taking(contenders, cases), describe(), ceilings(kinds))
    print_head(results)
    return results


def _taking(contenders: Sequence[Contender], cases: Sequence[Case]) -> list[str]:
    """The labels of those who take part in any of the cases."""
    return [contender.label for contender in contenders if any(contender.takes(case.task) for case in cases)]


def _finish(args: argparse.Namespace, results: Results) -> int:
    print_memory(results)
    print_versions(results.outcomes)
    summary = summarize(results.outcomes)
    if summary:
        print_summary(summary)
    print_shares(results)
    if getattr(args, "json", None) is not None:
        results.write(args.json)
        print(f"wrote {args.json}")
    if args.plot is not None:
        picture.save(args.plot, results)
        print(f"wrote {args.plot}")
    return 0


def _work(case: Case) -> str:
    """What the FLOPs of a case of training or inference depend on."""
    task = case.task
    assert isinstance(task, Train | Infer)
    sizes = "-".join(map(str, task.sizes))
    if isinstance(task, Infer):
        return f"{sizes}, inference of {task.batch}"
    return f"{sizes}, {task.samples * task.epochs:,} samples"
