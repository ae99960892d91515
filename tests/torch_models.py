"""Networks in plain PyTorch, with the names of torchvision's, which is not needed. Imported by tests that
have made sure of PyTorch."""

from typing import Any

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two convolutions of 3 x 3 with a way around them. He et al. 2016."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Any) -> Any:
        h = torch.relu(self.bn1(self.conv1(x)))
        around = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn2(self.conv2(h)) + around)


class ResNet18(nn.Module):
    """torchvision's resnet18."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512))
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Any) -> Any:
        h = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        return self.fc(h.mean(dim=(2, 3)))


def resnet20(classes: int = 10) -> nn.Module:
    """The form for CIFAR, shortcuts between stages by convolutions. Modules are counted as gemmule's layers:
    0, 1 the first convolution, 2 .. 10 the blocks, 11 the mean, 12 the classes."""
    blocks: list[nn.Module] = []
    for n_in, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        blocks += [BasicBlock(n_in, width, stride), BasicBlock(width, width), BasicBlock(width, width)]
    first = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    return nn.Sequential(first, _NormRelu(16), *blocks, _Mean(), nn.Linear(64, classes))


class _NormRelu(nn.BatchNorm2d):
    def forward(self, x: Any) -> Any:
        return torch.relu(super().forward(x))


class _Mean(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.mean(dim=(2, 3))


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """With weights and running statistics that are no defaults, in eval mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.2)
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 2)
    return module.eval()
