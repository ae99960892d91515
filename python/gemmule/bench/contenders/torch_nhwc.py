"""PyTorch in the layout NHWC, eagerly."""

from functools import partial

from . import torch_cnn, torch_eager, torch_layers, torch_norms

version = torch_eager.version
conv = partial(torch_layers.conv, layout="NHWC")
pool = partial(torch_layers.pool, layout="NHWC")
norm = partial(torch_norms.norm, layout="NHWC")
train_cnn = partial(torch_cnn.train, layout="NHWC")
infer_cnn = partial(torch_cnn.infer, layout="NHWC")
