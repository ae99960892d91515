"""PyTorch in the layout NHWC, compiled."""

from functools import partial

from . import torch_cnn, torch_eager

version = torch_eager.version
train_cnn = partial(torch_cnn.train_compiled, layout="NHWC")
infer_cnn = partial(torch_cnn.infer_compiled, layout="NHWC")
