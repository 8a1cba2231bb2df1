"""VGG, ResNet and DenseNet of any size, for images of 8×8 pixels or more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image's size, for a batch norm after it (so without a bias)."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def stem(channels: int, width: int, large: bool) -> list[nn.Module]:
    """The first layers: for ImageNet a convolution of 7×7 that halves the image, and a pooling that halves it again."""
    first = conv(channels, width, 7, 2) if large else conv(channels, width)
    return [first, nn.BatchNorm2d(width), nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if large else [])]


class Vgg(nn.Sequential):
    """Convolutions of 3×3 and max pooling (Simonyan & Zisserman, 2015, arXiv 1409.1556), with batch norm.

    Args:
        stages: The widths of the convolutions, a list a stage; each stage ends in a pooling.
        channels: Of the images.
        classes: Number of classes.
    """

    def __init__(self, stages: Sequence[Sequence[int]], channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        width = channels
        for stage in stages:
            for outputs in stage:
                layers += [conv(width, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
                width = outputs
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which has a convolution of 1×1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            conv(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """A residual network of basic blocks (He et al., 2016, arXiv 1512.03385).

    Args:
        blocks: Number of blocks of each stage. Each stage but the first halves the image and doubles the width.
        width: Of the first stage.
        channels: Of the images.
        classes: Number of classes.
        large: Begin as for ImageNet.
    """

    def __init__(self, blocks: Sequence[int], width: int, channels: int, classes: int, large: bool = False) -> None:
        layers = stem(channels, width, large)
        inputs = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                outputs = width * 2**stage
                layers.append(Residual(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class Dense(nn.Module):
    """A bottleneck and a convolution, whose output is put beside the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            conv(inputs, 4 * growth, 1),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            conv(4 * growth, growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class DenseNet(nn.Sequential):
    """A densely connected network with bottlenecks and compression by one half (Huang et al., 2017, arXiv 1608.06993).

    Args:
        blocks: Number of layers of each block; a transition between two blocks halves channels and image.
        growth: Channels that a layer adds.
        channels: Of the images.
        classes: Number of classes.
        large: Begin as for ImageNet.
    """

    def __init__(self, blocks: Sequence[int], growth: int, channels: int, classes: int, large: bool = False) -> None:
        width = 2 * growth
        layers = stem(channels, width, large)
        for number, count in enumerate(blocks):
            if number:
                layers += [nn.BatchNorm2d(width), nn.ReLU(), conv(width, width // 2, 1), nn.AvgPool2d(2)]
                width //= 2
            for _ in range(count):
                layers.append(Dense(width, growth))
                width += growth
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
        super().__init__(*layers)


def build(variant: str, dataset: str, channels: int, classes: int) -> nn.Module:
    """The network of a variant, at the scale of the data.

    Args:
        variant: "vgg", "resnet" or "densenet".
        dataset: "digits": a few layers of a few channels. "cifar10", "cifar100": VGG-11, ResNet-34, DenseNet-121.
            "imagenet": VGG-11, ResNet-18, DenseNet-121.
        channels: Of the images.
        classes: Number of classes.
    """
    small, large = dataset == "digits", dataset == "imagenet"
    if variant == "vgg":
        stages = ((16, 16), (32, 32)) if small else ((64,), (128,), (256, 256), (512, 512), (512, 512))
        return Vgg(stages, channels, classes)
    if variant == "resnet":
        blocks = (1, 1) if small else (2, 2, 2, 2) if large else (3, 4, 6, 3)
        return ResNet(blocks, 16 if small else 64, channels, classes, large)
    return DenseNet((2, 2) if small else (6, 12, 24, 16), 8 if small else 32, channels, classes, large)
