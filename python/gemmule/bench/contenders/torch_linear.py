"""PyTorch's `linear` on Z = X W^T; it takes no out and makes a new Z."""

from ..sample import Turn, repeated
from ..tasks import Gemm
from . import torch_eager

version = torch_eager.version


def gemm(task: Gemm) -> Turn:
    x, w_t, _ = torch_eager.tensors(task)
    w = w_t.t()  # as it lies: (n_out, n_in), contiguous
    linear = torch_eager.torch.nn.functional.linear
    task.check(x.numpy(), w_t.numpy(), linear(x, w).numpy())
    return repeated("linear(x, w)", linear=linear, x=x, w=w)
