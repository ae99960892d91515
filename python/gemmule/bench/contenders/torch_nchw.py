"""PyTorch in the layout NCHW, eagerly."""

from functools import partial

from . import torch_cnn, torch_eager, torch_layers, torch_norms

version = torch_eager.version
conv = partial(torch_layers.conv, layout="NCHW")
pool = partial(torch_layers.pool, layout="NCHW")
norm = partial(torch_norms.norm, layout="NCHW")
train_cnn = partial(torch_cnn.train, layout="NCHW")
infer_cnn = partial(torch_cnn.infer, layout="NCHW")
