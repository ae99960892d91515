"""PyTorch in the layout NCHW, compiled."""

from functools import partial

from . import torch_cnn, torch_eager

version = torch_eager.version
train_cnn = partial(torch_cnn.train_compiled, layout="NCHW")
infer_cnn = partial(torch_cnn.infer_compiled, layout="NCHW")
