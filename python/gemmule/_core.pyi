"""The compiled part: kernels, graph, plan. Users meet it through the modules beside it.

Every array passed in is checked here again (type, shape, contiguity): no input ends the process. Errors are
the classes of `gemmule.errors`. Unless said otherwise arrays are C-contiguous and of the graph's dtype.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# -- machine -------------------------------------------------------------------------------------------------

def known_isas() -> list[str]:
    """Every ISA compiled in, best first."""

def supported_isas() -> list[str]:
    """Those this CPU runs, best first."""

def active_isa() -> str: ...
def force_conv(path: str) -> None:
    """For tests: "direct", "winograd" or "winograd4" wherever it can be, "" by sizes again."""

def forced_conv() -> str: ...
def force_training(form: str) -> None:
    """For tests: "stepped", all gradients and then the update; "riding", updates on the ops that make
    gradients; "copied", the same on a working copy of even small parameters; where a network allows it. ""
    chooses again."""

def fill_workspaces(byte: int | None) -> None:
    """Test hook: new workspaces hold this byte everywhere (255: NaN), as no op may read what it has not
    written; None leaves them zeroed."""

def force_isa(name: str) -> None:
    """Use this ISA from now on. ValueError for an unknown name, DeviceError where the CPU lacks it."""

def num_threads() -> int: ...
def set_num_threads(count: int | None) -> None:
    """`None` goes back to the default: OMP_NUM_THREADS, else min(physical cores in the affinity mask, cgroup
    quota)."""

def build_info() -> dict[str, str]:
    """version, compiler, openmp, build_type."""

def fma_ceiling(dtype: str, threads: int, seconds: float) -> float:
    """FLOP/s of independent FMA chains in registers on the active ISA."""

def set_verbose(on: bool) -> None: ...
def fail_allocation_after(count: int) -> None:
    """Test hook: the count-th next allocation of an arena fails (0: the very next; negative: none does)."""

# -- parameters ----------------------------------------------------------------------------------------------

@final
class Store:
    """One flat, 64-byte aligned buffer each for values and gradients; segment i has counts[i] elements."""

    def __init__(self, dtype: str, counts: Sequence[int]) -> None: ...
    @property
    def dtype(self) -> str: ...
    @property
    def size(self) -> int:
        """Length of the flat buffers, padding between segments included (it stays zero)."""
    @property
    def offsets(self) -> list[int]: ...
    @property
    def values(self) -> Array:
        """Flat writable view (size,)."""
    @property
    def grads(self) -> Array: ...

# A stretch of parameters an optimizer walks: store, slots (n_slots, store.size), begin, end, and the matrices
# in it (begin, rows, cols), for Muon and max_norm.
Range = tuple[Store, Array, int, int, list[tuple[int, int, int]]]

# -- graph ---------------------------------------------------------------------------------------------------

@final
class Graph:
    """A function in single-assignment form. Values are numbered; `dims` never count the batch.

    Every `name` labels the value made, as in `trace` and `plan`."""

    def __init__(self, dtype: str) -> None: ...
    def input(self, dims: Sequence[int], name: str = "x") -> int: ...
    def parameter(self, store: Store, segment: int, shape: Sequence[int], trainable: bool, name: str) -> int:
        """The same (store, segment) twice is the same value."""
    def dense(self, x: int, weight: int, bias: int | None, name: str, precision: str = "full") -> int:
        """x (n_in,), weight (n_out, n_in), bias (n_out,): z = x W^T + b. precision: "full" or, in float32,
        "bf16", what operands are rounded to, here and in the gradients."""
    def conv2d(
        self,
        x: int,
        weight: int,
        bias: int | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        name: str,
        strict: bool = False,
    ) -> int:
        """x (H, W, n_in), weight (n_out, kh, kw, n_in / groups), bias (n_out,) -> (H', W', n_out). stride,
        dilation: (height, width); padding: (top, bottom, left, right). strict: no Winograd, here and in the
        gradients."""
    def activation(self, x: int, kind: str, slope: float, name: str) -> int: ...
    def softmax(self, x: int, name: str) -> int:
        """Over the last axis."""
    def dropout(self, x: int, rate: float, layer: int, name: str) -> int:
        """`layer` numbers the draws; only training programs contain this op."""
    def reshape(self, x: int, dims: Sequence[int], name: str) -> int: ...
    def dropout2d(self, x: int, rate: float, layer: int, name: str) -> int:
        """The same for whole channels, the last of two axes or more."""
    def add(self, a: int, b: int, name: str) -> int: ...
    def conv_transpose2d(
        self,
        x: int,
        weight: int,
        bias: int | None,
        dims: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        name: str,
        strict: bool = False,
    ) -> int:
        """x (H, W, n_in), weight (n_in, kh, kw, n_out / groups), bias (n_out,) -> dims (H', W', n_out), the
        image that a conv2d of this window makes x's size of."""
    def zero_pad2d(self, x: int, padding: Sequence[int], name: str) -> int:
        """Padding: (top, bottom, left, right)."""
    def resize2d(self, x: int, dims: Sequence[int], kind: str, scale: Sequence[float], name: str) -> int:
        """x (H, W, C) -> dims (H', W', C). kind: "nearest", "linear", "corners" or "mean". scale: (down,
        across), 0 where the sizes decide; for the first two alone."""
    def concat(self, values: Sequence[int], name: str) -> int:
        """(..., m), (..., n), ... -> (..., m + n + ...)."""
    def max_pool2d(
        self, x: int, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], name: str
    ) -> int:
        """Kernel, stride: (height, width). padding: (top, bottom, left, right), less than the kernel."""
    def avg_pool2d(
        self,
        x: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        count_padding: bool,
        name: str,
    ) -> int:
        """`count_padding`: divide by the kernel's size, or else by the window's elements inside the image."""
    def batch_norm(
        self,
        x: int,
        affine: Sequence[int] | None,
        running: Sequence[int],
        eps: float,
        momentum: float,
        training: bool,
        name: str,
    ) -> int:
        """affine: (weight, bias). running: (mean, variance), which `training` moves along, when the step is
        complete, by the batch's; else they are what x is normalized by."""
    def group_norm(
        self, x: int, affine: Sequence[int] | None, groups: int, axes: int, eps: float, name: str
    ) -> int:
        """Over the last `axes` axes or, where that is 0, over groups of channels."""
    def python(
        self,
        x: int,
        dims: Sequence[int],
        forward: Callable[[Array], Array],
        backward: Callable[[Array, Array, Array], Array],
        name: str,
    ) -> int:
        """An op that calls Python: forward(x) -> y, backward(dy, x, y) -> dx, whole batches (rows, *dims).

        The arrays passed in are views valid during the call. The result may be any real array of the right
        shape."""
    def custom_loss(
        self, output: int, value: Callable[[Array, Array], Array], gradient: Callable[[Array, Array], Array]
    ) -> None:
        """What the loss "custom" of this graph is: of `output` and targets, the loss of each sample and its
        derivative in the output. Any real arrays of the right shapes."""
    def dims(self, value: int) -> tuple[int, ...]: ...

# -- programs: compiled graphs -------------------------------------------------------------------------------

@final
class Predictor:
    """Forward only. Safe to call from several threads at once."""

    def __init__(self, graph: Graph, output: int, capacity: int) -> None: ...
    def run(self, x: Array, out: Array) -> None:
        """x (N, *dims_in), out (N, *dims_out); any N, in chunks of `capacity` rows."""
    def describe(self) -> str: ...

def trace(graph: Graph, values: Sequence[int], x: Array) -> list[Array]:
    """Run `graph` unfused on x and return copies of `values`, each (N, *dims)."""

@final
class Tape:
    """Forward and backward by hand. Holds the values of the last forward."""

    def __init__(self, graph: Graph, output: int, capacity: int) -> None: ...
    @property
    def capacity(self) -> int: ...
    def forward(self, x: Array, out: Array, key: int, step: int) -> None:
        """At most `capacity` rows. `key`, `step`: position in the Philox stream, for dropout."""
    def backward(self, dout: Array, dx: Array) -> None:
        """Adds to the stores' gradients; writes dx."""
    def describe(self) -> str: ...

@final
class Evaluator:
    """Mean loss and metrics over a data set. metrics: "accuracy", "mse", "mae"."""

    def __init__(
        self, graph: Graph, output: int, loss: str, parameter: float, metrics: Sequence[str], capacity: int
    ) -> None: ...
    def run(
        self,
        x: Array,
        y: Array,
        weights: NDArray[np.float64] | None = None,
        metric_weights: NDArray[np.float64] | None = None,
    ) -> tuple[float, ...]:
        """(loss, *metrics). y: int64 (N,) labels for losses of classes and accuracy, else (N, *dims_out).

        weights: (N,), of the samples in the mean of the losses; metric_weights: in those of the metrics, 1
        each where there are none."""

@final
class Augmenter:
    """Moves and mirrors images (H, W, C) of one type, uint8, float32 or float64, at random: `gemmule.Augment`
    has the formula. down, across: the largest moves. fill: "constant", which is `value`, "edge" or
    "reflect"."""

    def __init__(
        self,
        image: Sequence[int],
        dtype: str,
        flip: float,
        vertical_flip: float,
        down: int,
        across: int,
        fill: str,
        value: float,
    ) -> None: ...
    def apply(self, x: Array, out: Array, key: int, step: int) -> None:
        """out = the batch x as it is seen in this step under this key; C-contiguous (N, H, W, C)."""

class Trainer:
    """The epoch loop: shuffled gather, forward, loss, backward, update."""

    def __init__(
        self,
        graph: Graph,
        output: int,
        loss: str,
        parameter: float,
        metrics: Sequence[str],
        batch_size: int,
        keeps_output: bool = False,
        per_step: int = 1,
    ) -> None: ...
    def run(
        self,
        x: Array,
        y: Array,
        *,
        epochs: int,
        order: NDArray[np.int64] | None,
        shuffle: bool,
        key: int,
        step: int,
        rule: str,
        hyper: dict[str, float],
        updates: int,
        ranges: Sequence[Range],
        begin: tuple[int, int, list[float]] | None = None,
        steps: int | None = None,
        rates: NDArray[np.float64] | None = None,
        outputs: Array | None = None,
        scale: float = 1.0,
        sizes: Sequence[int] = (),
        weights: NDArray[np.float64] | None = None,
        metric_weights: NDArray[np.float64] | None = None,
        augmenter: Augmenter | None = None,
    ) -> list[tuple[float, ...]]:
        """Train `epochs` epochs and return (loss, *metrics) of each, means over its samples as they were met.

        order: (epochs, N) indices of samples, or None: by Philox where `shuffle`, else as they lie.
        key: the network's Philox key. step: its count of training steps so far, which positions dropout and
        shuffling. rule: "sgd" | "adam" | "adamw" | "rmsprop" | "adagrad" | "lion" | "muon". hyper: of lr,
        momentum, nesterov, weight_decay, beta1, beta2, eps, lr_decay, centered those it has; for Muon ns_a,
        ns_b, ns_c, ns_steps, ns_eps, match_rms, vector_lr, vector_decay, vector_eps; for every rule l1,
        clip_value, clip_norm, max_norm and ema, which has a slot of its own behind the rule's. updates: steps
        this optimizer has done, Adam's t - 1.
        begin: the `position` where an earlier run was left within an epoch, which is the first of `epochs`.
        At 0 its sums are those of the epoch's samples that came before x.
        steps: the most to do, whether or not the epochs are over. rates: the learning rate of each update to
        come, none above hyper's lr. outputs: (N, ...) to be filled with the network's output for each
        sample, where it stands in x; for a trainer that keeps_output. scale: of x where it is uint8.
        sizes: the rows of each batch, where not all but the last have batch_size. weights, metric_weights:
        (N,), as of an Evaluator. augmenter: of the samples of x, images, whenever they are trained on.
        A trainer of per_step > 1 makes one step of so many batches, with the gradient of the mean over all
        their samples.
        Raises DivergenceError (loss, gradient or update not finite; the message names epoch and batch,
        counting from 1) and KeyboardInterrupt. Whatever it raises, the parameters and slots are those of the
        last complete step, and `steps_done` and `epochs_done` say how far this call came; `partial` holds
        (loss, *metrics) of finished epochs."""
    @property
    def position(self) -> tuple[int, int, list[float]]:
        """(samples of the epoch under way, step at which it began, its sums of loss and metrics; with weights
        those of both behind them)."""
    @property
    def steps_done(self) -> int: ...
    @property
    def epochs_done(self) -> int: ...
    @property
    def partial(self) -> list[tuple[float, ...]]: ...
    def describe(self) -> str: ...

def update(rule: str, hyper: dict[str, float], updates: int, ranges: Sequence[Range]) -> None:
    """One optimizer step from the gradients of the stores; DivergenceError, no change, where not finite."""

# -- kernels on arrays ---------------------------------------------------------------------------------------

def gemm(
    a: Array,
    b: Array,
    out: Array | None = None,
    alpha: float = 1.0,
    beta: float = 0.0,
    trans_a: bool = False,
    trans_b: bool = False,
    bias: Array | None = None,
    activation: str = "identity",
    slope: float = 1.0,
    precision: str = "full",
) -> Array:
    """out = act(alpha op(a) op(b) + beta out + bias). Any strides; a and b are matrices of one real dtype."""

def matmul(a: Array, b: Array, out: Array | None = None) -> Array | None:
    """out = a b, stacks of matrices (..., M, K) and (..., K, N) broadcast against each other, of any strides.

    None, and nothing done, where they are not all float32 or all float64, a or b has less than two axes, or
    `out` is read-only or has another shape: NumPy's rules go further."""

@final
class PackedMatrix:
    """op(b) (K, N) in panels, of float32 or float64; safe to use from several threads at once."""

    def __init__(self, b: Array, trans: bool) -> None: ...
    def refresh(self, b: Array, trans: bool) -> None: ...
    def unpack(self) -> Array:
        """A new array (K, N)."""
    def gemm(
        self,
        a: Array,
        out: Array | None = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        trans_a: bool = False,
        bias: Array | None = None,
        activation: str = "identity",
        slope: float = 1.0,
    ) -> Array:
        """out = act(alpha op(a) packed + beta out + bias)."""
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

def plain_gemm(
    a: object,
    b: object,
    out: object,
    alpha: object,
    beta: object,
    trans_a: object,
    trans_b: object,
    bias: object,
    activation: object,
    slope: object,
    /,
) -> Array | None:
    """gemm where every argument can be used as it is; otherwise None, and nothing has been done. For the cost
    of small products."""

# The following write `out`, of the dtype and shape of the first array unless said; arrays are C-contiguous.
def activation(kind: str, slope: float, z: Array, out: Array) -> None: ...
def activation_grad(kind: str, slope: float, dh: Array, saved: Array, out: Array) -> None:
    """`saved` is z where activation_saves_input(kind), else h."""

def activation_saves_input(kind: str) -> bool: ...
def softmax(z: Array, out: Array) -> None: ...
def softmax_grad(dh: Array, h: Array, out: Array) -> None: ...
def dropout(x: Array, out: Array, rate: float, key: int, step: int, layer: int) -> None: ...
def sum_rows(x: Array, out: Array, accumulate: bool) -> None:
    """x (rows, cols) -> out (cols,)."""

# Images (N, H, W, C), filters (n_out, kh, kw, n_in / groups), all of one real type. strict: no Winograd.
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
    strict: bool = False,
) -> None: ...
def conv2d_input_grad(
    dz: Array,
    weight: Array,
    dx: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    strict: bool = False,
) -> None: ...
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    out: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
    strict: bool = False,
) -> None:
    """weight (n_in, kh, kw, n_out / groups); `out` says how large the result is."""

def conv2d_weight_grad(
    x: Array,
    dz: Array,
    dweight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    strict: bool = False,
) -> None: ...

# parameter: delta of huber, label smoothing of cross_entropy, eps of poisson_rates.
def loss(kind: str, parameter: float, pred: Array, target: Array) -> float:
    """Mean over samples. target: as pred, or int64 (rows,) labels for the cross entropies."""

def loss_grad(kind: str, parameter: float, pred: Array, target: Array, out: Array) -> None: ...
def scale_bytes(x: Array, scale: float, out: Array) -> None:
    """out = scale x, x uint8, out of a real dtype and x's shape."""

def exp(x: Array, out: Array) -> None:
    """The exponential the kernels use; for tests of its accuracy."""

def erf(x: Array, out: Array) -> None: ...

# Pooling of images (N, H, W, C) of a real dtype; windows as in Graph. All arrays are C-contiguous.
def max_pool2d(
    x: Array,
    y: Array,
    places: Array | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> None:
    """places, uint8 like y: the largest element is tap r kernel_width + s; the first of equals."""

def max_pool2d_backward(
    dy: Array,
    places: Array,
    dx: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> None: ...
def avg_pool2d(
    x: Array,
    y: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_padding: bool,
) -> None: ...
def avg_pool2d_backward(
    dy: Array,
    dx: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_padding: bool,
) -> None: ...

# Over a batch: x (pixels, channels), stats (3, channels): mean, 1 / sqrt(variance + eps), unbiased variance.
def batch_stats(x: Array, eps: float, stats: Array) -> None: ...
def batch_norm(x: Array, stats: Array, weight: Array | None, bias: Array | None, y: Array) -> None: ...
def batch_norm_sums(dy: Array, x: Array, stats: Array, sums: Array) -> None:
    """sums (2, channels): of dy, and of dy (x - mean) / sqrt(variance + eps)."""

def batch_norm_grad(
    dy: Array, x: Array, stats: Array, weight: Array | None, sums: Array | None, dx: Array
) -> None:
    """sums None: the statistics are constants."""

# Within a sample: x (samples, pixels, channels), stats (samples, groups, 2): mean, 1 / sqrt(variance + eps).
def group_norm(
    x: Array,
    groups: int,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    stats: Array | None,
) -> None: ...
def group_norm_sums(dy: Array, x: Array, groups: int, stats: Array, sums: Array) -> None: ...
def group_norm_grad(
    dy: Array, x: Array, groups: int, stats: Array, weight: Array | None, dx: Array
) -> None: ...
def zero_pad2d(x: Array, y: Array, padding: Sequence[int]) -> None: ...
def zero_pad2d_backward(dy: Array, dx: Array, padding: Sequence[int]) -> None: ...
def resize2d(x: Array, y: Array, kind: str, scale: Sequence[float]) -> None: ...
def resize2d_backward(dy: Array, dx: Array, kind: str, scale: Sequence[float]) -> None: ...
def dropout2d(x: Array, out: Array, rate: float, key: int, step: int, layer: int) -> None: ...
