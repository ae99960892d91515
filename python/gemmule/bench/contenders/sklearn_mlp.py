"""scikit-learn's MLPClassifier and MLPRegressor without their penalty.

`partial_fit` is one epoch and keeps the optimizer's state. Several epochs are one `fit` with warm_start,
where that state begins anew each time.
"""

import importlib
import warnings
from typing import Any

import numpy as np

from ..sample import KEPT_LOSSES, Turn, timed
from ..tasks import Train

sklearn: Any = importlib.import_module("sklearn")
neural_network: Any = importlib.import_module("sklearn.neural_network")
exceptions: Any = importlib.import_module("sklearn.exceptions")


def version() -> str:
    return f"scikit-learn {sklearn.__version__}"


def train(task: Train) -> Turn:
    x, y = task.data
    classify = task.loss == "cross_entropy"
    n_out = task.sizes[-1]
    kind = neural_network.MLPClassifier if classify else neural_network.MLPRegressor
    # Its squared error is halved, and its gradient summed over the outputs.
    factor = 1.0 if classify or task.optimizer == "adam" else 2.0 / n_out
    model = kind(
        hidden_layer_sizes=task.sizes[1:-1],
        solver="adam" if task.optimizer == "adam" else "sgd",
        alpha=0.0,
        batch_size=task.batch,
        learning_rate_init=factor * task.lr,
        momentum=task.momentum,
        nesterovs_momentum=False,
        shuffle=task.shuffle,
        random_state=np.random.RandomState(0),  # a number would repeat one order
        max_iter=task.epochs,
        tol=0.0,
        n_iter_no_change=10**9,
        warm_start=True,
    )
    classes = {"classes": np.arange(n_out)} if classify else {}
    targets = y.ravel() if n_out == 1 else y
    model.partial_fit(x[: task.batch], targets[: task.batch], **classes)  # makes its arrays
    for (weight, bias), coefs, intercepts in zip(
        task.weights(), model.coefs_, model.intercepts_, strict=True
    ):
        coefs[...], intercepts[...] = weight.T, bias
    del model._optimizer  # and the state of that first step

    def call() -> float:
        if task.epochs == 1:
            model.partial_fit(x, targets)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
                model.fit(x, targets)
        return float(model.loss_) * (1.0 if classify else 2.0)

    anew = task.epochs > 1 and task.optimizer != "sgd"
    return timed(call, kept=1 if anew else KEPT_LOSSES)
