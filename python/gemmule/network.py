"""The network: a list of layers, itself a layer."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from . import _layout, building, inference, losses
from .activations import ActivationLike
from .arrays import Array, Shape, float_dtype
from .callbacks import Callback
from .history import History
from .layers.base import Layer, checked_shape
from .layers.container import Chain
from .layers.dense import Dense
from .losses import Loss
from .optim import LBFGS, Optimizer
from .parameters import Parameter, Segment
from .programs import Programs

if TYPE_CHECKING:
    from os import PathLike

    from ._weights import ClassWeight
    from .augment import Augment
    from .metrics import MetricLike

RngLike = Any  # int, numpy.random.Generator or None; naming the class would import numpy.random


class Network(Chain):
    """Layers applied one after the other. A network is a layer: networks nest.

        net = gm.Network([gm.Dense(64, 128, "relu"), gm.Dense(128, 10)], rng=0)

    layers: `Layer` objects. The same object twice shares its parameters; so do slices, `net[:2]`, and
        networks that contain this one.
    input_shape: the shape of one sample, where the first layers do not tell; else the network is built when
        the first data come.
    dtype: "float32" or "float64", for parameters and arithmetic.
    rng: int, `numpy.random.Generator` or None (fresh): the seed of initial weights, shuffling, dropout,
        augmentation and validation split.
    layout: "channels_first" for images (N, C, H, W) and sequences (N, C, L), as other frameworks have them;
        `input_shape` is then (C, H, W), and so are all arrays that come and go, in `trace` too, and targets
        that are images. They are turned once on the way in and out. Layers, `output_shape`, `plan` and
        functions of your own still see channels last: `Flatten` goes over (H, W, C), channels fastest. Inside
        another network the outer one's layout counts.

    `preprocessing` is a dict kept by `save`: how inputs were prepared, what the classes are called. Whatever
    JSON holds may be in it. gemmule applies "table" and "classes" alone, to tables: see `gemmule.tables`.
    """

    def __init__(
        self,
        layers: Iterable[Layer],
        *,
        input_shape: Sequence[int] | int | None = None,
        dtype: Any = "float32",
        rng: RngLike = None,
        name: str | None = None,
        layout: str = "channels_last",
    ) -> None:
        self._describe(layers, input_shape, dtype, rng, name, layout)
        known = self._known_input_shape()
        if known is not None:
            building.build(self, known)

    def _describe(
        self,
        layers: Iterable[Layer],
        input_shape: Any,
        dtype: Any,
        rng: RngLike,
        name: str | None,
        layout: Any,
    ) -> None:
        """All of `__init__` but the memory."""
        Chain.__init__(self, layers, "Network")
        self._layout = _layout.checked_layout(layout, "layout")
        given = None if input_shape is None else checked_shape(input_shape, "input_shape")
        self._given_shape = None if given is None else _layout.inside(self, given)
        self._built_shape: Shape | None = None
        self._dtype = float_dtype(dtype)
        self.name = name
        self.preprocessing: dict[str, Any] = {}
        self.history: History | None = None
        self._key = building.philox_key(rng)
        self._step = 0  # training steps so far: the position in the random stream
        self._loss: Loss | None = None
        self._start()

    def _start(self) -> None:
        """What copies and pickles make anew."""
        self._programs = Programs()
        self._last: inference.LastForward | None = None  # what backward belongs to
        self._lock = threading.RLock()  # of forward and backward by hand
        self._running = False  # whether the holder of the lock is in one of them

    @classmethod
    def mlp(
        cls,
        sizes: Sequence[int],
        activation: ActivationLike = "relu",
        output: ActivationLike = None,
        **options: Any,
    ) -> Self:
        """Dense layers of `sizes` (n_in, hidden ..., n_out): `activation` between, `output` at the end.

        Further options are those of `Network`."""
        if not isinstance(sizes, Sequence) or len(sizes) < 2:
            raise ValueError(f"mlp: sizes must list the widths from input to output, not {sizes!r}")
        last = len(sizes) - 2
        return cls(
            [Dense(sizes[i], sizes[i + 1], output if i == last else activation) for i in range(last + 1)],
            **options,
        )

    # -- running ---------------------------------------------------------------------------------------------

    def predict(self, X: ArrayLike) -> Array:
        """The last layer's output (N, ...) for a batch X (N, ...) or one sample. What can be sliced is read
        in blocks. Safe from several threads at once."""
        return inference.predict(self, X)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities: the output through the link of the loss trained with, softmax or sigmoid; as it is
        where it is one already. ValueError where the loss is unknown or one of regression."""
        return inference.predict_proba(self, X)

    def forward(self, X: ArrayLike, training: bool = False) -> Array:
        """As `predict`, keeping what `backward` needs. training=True: with dropout, drawn anew each time."""
        return inference.forward(self, X, training)

    def backward(self, dy: ArrayLike) -> Array:
        """From the gradient of what `forward` returned, the gradient of its input; adds to every `.grad`."""
        return inference.backward(self, dy)

    def trace(self, X: ArrayLike) -> dict[str, Array]:
        """Every quantity of a forward pass without dropout, by name in order of computation.

        "x" is the input, "0.h" the output of layer 0, "0.z" its pre-activation where it is dense (equal to
        "0.h" without an activation); inside a nested network 1, "1.0.z" and so on."""
        return inference.trace(self, X)

    def evaluate(
        self,
        X: Any,
        y: Any = None,
        *,
        metrics: "Sequence[MetricLike] | None" = None,
        loss: str | Loss | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, float]:
        """{"loss": ..., metric: ...}, means over the samples, without dropout.

        metrics: as for `fit`; by default accuracy for a loss of classification. loss: by default the
        one trained with. sample_weight: (N,), what each sample counts in all the means. X and y may be larger
        than memory, or X an iterable of batches, as for `fit`, then without weights."""
        from . import training

        return training.evaluate(self, X, y, metrics=metrics, loss=loss, sample_weight=sample_weight)

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        loss: str | Loss | None = None,
        optimizer: str | Optimizer | LBFGS = "adam",
        epochs: int = 1,
        batch_size: int | None = 32,
        accumulate: int = 1,
        shuffle: bool | str | ArrayLike = True,
        validation_split: float = 0.0,
        validation_data: Any = None,
        sample_weight: ArrayLike | None = None,
        class_weight: "ClassWeight | None" = None,
        metrics: "Sequence[MetricLike]" = (),
        progress: bool | None = None,
        callbacks: Sequence[Callback] = (),
        precision: str | None = None,
        resume: "str | PathLike[str] | None" = None,
        scale: float | None = None,
        steps_per_epoch: int | None = None,
        augment: "Augment | None" = None,
    ) -> History:
        """Train on X (N, ...) and targets y, and return the losses of each epoch.

        loss: mse, half_mse, mae, huber, bce, bce_with_logits, hinge, cross_entropy, kl_divergence, poisson,
            or an object of `gemmule.losses`, where they have settings; None takes that of the last fit. y is
            (N, n), or (N,) for one output, or integer labels (N,) for cross_entropy and hinge.
        optimizer: sgd, adam, adamw, rmsprop, adagrad, lion, muon, lbfgs (with defaults, starting afresh), or
            an object of `gemmule.optim`, which keeps its state.
        batch_size: None is the whole set. The last batch may be smaller.
        accumulate: so many batches make one update, with the gradient of the mean over all their samples;
            the last update of an epoch takes what is left. Batches of b give what batches of accumulate * b
            give, dropout included, to rounding. (Keras calls it gradient_accumulation_steps.)
        shuffle: True draws an order for each epoch, False takes X as it lies, an integer array (epochs, N)
            gives the indices of the samples, "blocks" reads an array in blocks, as below.
        validation_split: this fraction of X is held out, the same at every fit of this network, in proportion
            for integer classes. validation_data: (X, y), or (X, y, sample_weight), or batches of (X, y),
            instead.
        sample_weight: (N,), what each sample counts, at least 0: the loss of an update is sum w l / sum w, so
            that weights of whole numbers do what repeated rows would. Metrics count them too. A sample of
            weight 0 counts nothing, whatever its target; an update of such samples has the gradient 0. For
            arrays in memory.
        class_weight: {class: weight}, 1 for those that are not named, or "balanced", the inverse of how often
            each class occurs, N / (classes N_class). It multiplies sample_weight in the losses, those of
            validation too; metrics do not count it.
        metrics: names (accuracy, top_k, precision, recall, f1, auc, mse, mae, r2), objects of
            `gemmule.metrics`, or functions of (targets, outputs).
        progress: True shows it; None does so on a terminal.
        callbacks: `Callback` objects.
        precision: of the dense layers that have none of their own, while they train: "bf16" rounds the
            operands of their products to bfloat16, for float32 networks; "full" and None do not. Validation
            and `predict` go by the layers alone.
        resume: the file of a `gemmule.callbacks.Checkpoint`. The fit, given the same arguments as the one
            that wrote it, goes on there, and ends with bitwise the weights of an uninterrupted one.
        scale: for X of uint8, which is kept as it is: the network sees scale * X, rounded once. From then on
            it sees that of every uint8 array, in `predict` and `evaluate` too, and a saved network knows it
            (`preprocessing["uint8_scale"]`); arrays of other types are taken as they are. None: the scale of
            an earlier fit, else 1.
        steps_per_epoch: for batches without end, see below.
        augment: a `gemmule.Augment`, for images: each is mirrored and moved at random whenever it is trained
            on. Losses and metrics of training are of what was seen, validation has the images as they are.

        X and y may be larger than memory: memory-mapped arrays, which are read where they lie if they are
        C-contiguous and of the network's type or uint8, or whatever has rows that can be sliced, like HDF5
        and Zarr. Those are read in blocks of about 32 MB by a thread while the block before is trained on,
        and shuffled in blocks: a block is made of stretches from 16 places, and its rows are shuffled.
        Or X is an iterable of batches (X, y), or a function that returns one, given the number of the epoch
        from 0 if it has an argument `epoch`; y is None then. Each batch is a step, in the order they come;
        none may have more samples than the first. An epoch is one pass, or steps_per_epoch batches of a pass
        that goes on over the epochs. The thread that reads them runs ahead. See docs/training.md.

        X may be a table: a data frame (pandas, polars), a dict of columns or a structured array; y then is a
        column or the name of one in X. Numbers are taken as they are, column by column. Where X holds text,
        `gm.tables.TableEncoder` learns from all of X how to prepare it; text in y becomes its place among the
        sorted names. Both are kept in `preprocessing`, and later tables prepared in the same way.

        The losses are means over an epoch's samples as they were met. Afterwards `.grad` holds the gradients
        of the last step; what it holds after an exception is not defined. After an exception (DivergenceError
        for a loss, gradient or update that is not finite, KeyboardInterrupt) the network is as the last
        complete step left it, and `self.history` holds the finished epochs. RuntimeError while another fit
        trains the same parameters."""
        from . import training

        return training.fit(
            self,
            X,
            y,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            shuffle=shuffle,
            validation_split=validation_split,
            validation_data=validation_data,
            sample_weight=sample_weight,
            class_weight=class_weight,
            metrics=metrics,
            progress=progress,
            callbacks=callbacks,
            precision=precision,
            resume=resume,
            scale=scale,
            steps_per_epoch=steps_per_epoch,
            augment=augment,
        )

    @property
    def loss(self) -> Loss | None:
        """The loss of the last fit, which `evaluate` and `predict_proba` go by. Assign a name or an
        object."""
        return self._loss

    @loss.setter
    def loss(self, value: str | Loss | None) -> None:
        self._loss = None if value is None else losses.resolve(value)

    # -- parameters ------------------------------------------------------------------------------------------

    def segments(self) -> list[tuple[str, Segment, bool]]:
        """(name, segment, trainable) of every parameter, and of all state. What is frozen in one place and
        not in another is trained."""
        building.require_built(self)
        return self._programs.segments(self)

    def trainable_segments(self) -> list[Segment]:
        """The segments an optimizer walks, in order."""
        return [segment for _, segment, trainable in self.segments() if trainable]

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, Parameter) in layer order, as "0.weight"; what is shared occurs once."""
        for name, segment, _ in self.segments():
            if not segment.is_state:
                yield name, segment.view(name)

    def named_state(self) -> Iterator[tuple[str, Array]]:
        for name, segment, _ in self.segments():
            if segment.is_state:
                yield name, segment.values

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters, and of all state, by name, in layer order."""
        return {name: np.array(segment.values) for name, segment, _ in self.segments()}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Copy values in by name. strict: the names must be exactly those of `state_dict`, else only the
        common ones are taken. ValueError and ShapeError come before anything is written."""
        building.load_state({name: segment.values for name, segment, _ in self.segments()}, state, strict)

    # -- structure -------------------------------------------------------------------------------------------

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers. A network's layers do not change; build another from slices."""
        return self._layers

    @property
    def input_shape(self) -> Shape | None:
        """The shape of one sample in the network's layout, None while it is not known."""
        shape = self._inner_shape
        return None if shape is None else _layout.outside(self, shape)

    @property
    def layout(self) -> str:
        """Where channels stand in the arrays that come and go: "channels_last" or "channels_first"."""
        return self._layout

    @property
    def _inner_shape(self) -> Shape | None:
        """The same channels-last."""
        return self._given_shape if self._stage == "described" else self._built_shape

    @property
    def dtype(self) -> str:
        """ "float32" or "float64"."""
        return self._dtype

    @property
    def built_input_shape(self) -> Shape:
        """The shape of one sample of a built network, channels-last; RuntimeError before."""
        return building.require_built(self)

    def output_shape(self, input_shape: Shape | None = None) -> Shape:
        """The output's shape for one sample."""
        return super().output_shape(self.built_input_shape if input_shape is None else input_shape)

    @property
    def output_dims(self) -> Shape:
        """The output's shape for one sample, of a built network."""
        building.require_built(self)
        return self._output_dims

    def flops(self, input_shape: Shape | None = None) -> int:
        """Floating-point operations of the products of dense and convolutional layers for one sample. Taps
        of a convolution that meet the padding are counted."""
        return super().flops(self.built_input_shape if input_shape is None else input_shape)

    def config(self) -> dict[str, Any]:
        return {}

    def _declare(self, input_shape: Shape, fresh: list[Layer]) -> Shape:
        if self._inner_shape not in (None, input_shape):
            raise building.shape_conflict(self, input_shape)
        if self._stage == "described":
            fresh.append(self)
            self._stage = "building"
            self._built_shape = input_shape
        self._output_dims = super()._declare(input_shape, fresh)
        return self._output_dims

    def _known_input_shape(self) -> Shape | None:
        return super()._known_input_shape() if self._inner_shape is None else self._inner_shape

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> "Network": ...
    def __getitem__(self, index: int | slice) -> "Layer | Network":
        """A layer, or for a slice a network of some of the layers, which shares their parameters."""
        if not isinstance(index, slice):
            return self._layers[index]
        return building.sliced(self, index)

    # -- looking, keeping ------------------------------------------------------------------------------------

    def summary(self) -> str:
        """A table of layers, output shapes, parameters and FLOPs per sample."""
        from . import summary

        return summary.text(self)

    def plan(self, batch_size: int = 64, *, training: bool = True, loss: str | Loss | None = None) -> None:
        """Print the compiled program: operations, fusions, memory. training=False: that of `predict`.

        loss: by default that of the last fit, else the one that suits the output."""
        from . import training as train

        print(train.describe(self, batch_size, training, loss))

    def save(self, path: "str | PathLike[str]") -> None:
        """Write architecture, weights, loss and `preprocessing` to a safetensors file, whole or not at all.

        TypeError for lambdas and other functions or classes without an importable name."""
        from . import io

        io.save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_programs", "_last", "_lock", "_running")
        return {key: value for key, value in vars(self).items() if key not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        from . import summary

        return summary.representation(self)

    def _repr_html_(self) -> str:
        from . import summary

        return summary.html(self)
