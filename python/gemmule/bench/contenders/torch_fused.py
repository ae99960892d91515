"""PyTorch eager with its fused optimizer."""

from ..sample import Turn
from ..tasks import Train
from . import torch_eager

version = torch_eager.version


def train(task: Train) -> Turn:
    return torch_eager.train(task, fused=True)
