"""L-BFGS: SciPy's, driven from the training loop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, not_negative, real_number


class LBFGS:
    """L-BFGS with a line search (Byrd, Lu, Nocedal and Zhu 1995), SciPy's
    `minimize(method="L-BFGS-B")`, on all samples at once; it takes `pip install 'gemmule[scipy]'`.

    In `fit`, an epoch is an iteration: at most `epochs` of them, fewer where it has converged. batch_size
    must be None, or at least the number of samples. The history holds the loss and metrics at each iterate,
    without the decay. The function that is minimised is one and the same throughout: dropout keeps its mask
    for a whole fit. A second fit starts with no memory of the first. Where a value on the way is not finite
    (DivergenceError), or upon Ctrl-C, the network holds the last complete iterate.

    history: how many steps back it remembers. tolerance: it ends where no element of the gradient is larger.
    loss_tolerance: and where an iteration lowers the loss f by at most loss_tolerance max(|f|, |f'|, 1).
    line_search: the most evaluations of an iteration. weight_decay: adds weight_decay / 2 |w|^2 to the loss.

    The algorithm computes in float64, the network in its own type; float64 lets it converge further."""

    def __init__(
        self,
        history: int = 10,
        tolerance: float = 1e-5,
        loss_tolerance: float = 1e-9,
        line_search: int = 20,
        *,
        weight_decay: float = 0.0,
    ) -> None:
        self.history = history
        self.tolerance = tolerance
        self.loss_tolerance = loss_tolerance
        self.line_search = line_search
        self.weight_decay = weight_decay
        self._options(1)

    def _options(self, iterations: int) -> dict[str, Any]:
        """Checked, as SciPy names them."""
        line_search = _count(self.line_search, "LBFGS: line_search")
        not_negative(self.weight_decay, "LBFGS: weight_decay")
        return {
            "maxiter": iterations,
            "maxcor": _count(self.history, "LBFGS: history"),
            "gtol": not_negative(self.tolerance, "LBFGS: tolerance"),
            "ftol": not_negative(self.loss_tolerance, "LBFGS: loss_tolerance"),
            "maxls": line_search,
            "maxfun": (iterations + 1) * (line_search + 1),
        }

    def __repr__(self) -> str:
        return f"LBFGS({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def _count(value: Any, what: str) -> int:
    number = real_number(value, what)
    if not 1 <= number <= 10**6 or number != int(number):
        raise ValueError(f"{what} is {value}; it must be a whole number of at least 1")
    return int(number)


class Asked(NamedTuple):
    """What the minimiser wants: the value and gradient `at` a point, or that a complete iterate is noted."""

    value: bool
    at: Array


class _StopError(Exception):
    """Ends a minimiser whose questions nobody answers any more."""


class Minimizer:
    """SciPy's loop turned inside out: it runs in a thread of its own and asks, and the training loop answers
    in the caller's thread, where Python layers, callbacks and signals belong. Only one of the two runs at any
    time."""

    def __init__(self, settings: LBFGS, start: Array, iterations: int) -> None:
        import queue  # here: few who import gemmule minimise
        import threading

        self._minimize = _scipy_minimize()
        self._options = settings._options(iterations)
        self._start = start
        self._questions: queue.SimpleQueue[Asked | BaseException | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[float, Array] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="gemmule-lbfgs", daemon=True)
        self._started = self._noted = self._over = False

    def ask(self) -> Asked | None:
        """The next question, None once it has converged or come to its end. Asking again answers that an
        iterate was noted."""
        if self._over:
            return None
        if not self._started:
            self._started = True
            self._thread.start()
        elif self._noted:
            self._answers.put((0.0, self._start))
        question = self._questions.get()
        self._noted = isinstance(question, Asked) and not question.value
        if isinstance(question, Asked):
            return question
        self._over = True
        self._thread.join()
        if question is not None:
            raise question
        return None

    def answer(self, value: float, gradient: Array) -> None:
        """To the last question, if it was for a value."""
        self._answers.put((value, gradient))

    def close(self) -> None:
        """End it wherever it is."""
        if self._started and not self._over:
            self._over = True
            self._answers.put(None)
            self._thread.join()

    def _work(self) -> None:
        end: BaseException | None = None
        try:
            # SciPy takes a callback of this very name for one that is given value and point.
            def callback(intermediate_result: Any) -> None:
                self._wait(Asked(False, np.array(intermediate_result.x)))

            self._minimize(
                lambda w: self._wait(Asked(True, np.array(w))),
                self._start,
                jac=True,
                method="L-BFGS-B",
                callback=callback,
                options=self._options,
            )
        except _StopError:
            return
        except BaseException as error:  # to be raised by the caller's thread
            end = error
        self._questions.put(end)

    def _wait(self, question: Asked) -> tuple[float, Array]:
        self._questions.put(question)
        answer = self._answers.get()
        if answer is None:
            raise _StopError
        return answer


def _scipy_minimize() -> Callable[..., Any]:
    try:
        from scipy.optimize import minimize  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError("LBFGS is SciPy's: pip install 'gemmule[scipy]'") from error
    return minimize  # type: ignore[no-any-return]
