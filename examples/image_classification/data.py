"""The images: scikit-learn's digits, or a dataset from a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from examples.harness import cifar
from examples.image_classification import imagenet

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Images:
    """A part of a dataset in memory.

    Args:
        x: float32 or uint8, shape (n, channels, height, width).
        y: int64, shape (n,), classes from 0.
        mean: Of each channel, shape (channels, 1, 1); subtracted from a batch.
        std: Of each channel, shape (channels, 1, 1); a batch is divided by it.
        augment: Whether training batches are cropped and flipped at random.
    """

    x: Tensor
    y: Tensor
    mean: Tensor
    std: Tensor
    augment: bool = False

    def shuffled(self, size: int, generator: torch.Generator) -> Batches:
        """One epoch of training batches; a last one that is smaller is left out."""
        order = torch.randperm(len(self.y), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            x = self.x[chosen]
            yield self.standardized(crop_and_flip(x, generator) if self.augment else x), self.y[chosen]

    def ordered(self, size: int) -> Batches:
        """All of it, in order."""
        for x, y in zip(self.x.split(size), self.y.split(size), strict=True):
            yield self.standardized(x), y

    def standardized(self, x: Tensor) -> Tensor:
        """float32, of mean 0 and standard deviation 1 over the training part."""
        return (x.float() - self.mean) / self.std


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test part, each with `y`, `shuffled` and `ordered`, and what a network must know."""

    train: Images | imagenet.Files
    validation: Images | imagenet.Files
    test: Images | imagenet.Files
    channels: int
    classes: int


def load(dataset: str, folder: Path | None) -> Dataset:
    """Read a dataset.

    Args:
        dataset: "digits", "cifar10", "cifar100" or "imagenet".
        folder: Where it is; None for digits.

    Raises:
        DataError: The folder does not hold it.
    """
    if dataset == "digits":
        raw = load_digits()
        x, y = torch.from_numpy(raw.images).float().unsqueeze(1), torch.from_numpy(raw.target).long()
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        return split(x[order[:1000]], y[order[:1000]], x[order[1000:]], y[order[1000:]], 300, 10, augment=False)
    if dataset == "imagenet":
        return Dataset(*imagenet.read(folder), channels=3, classes=len(imagenet.classes(folder / "train")))
    kind = cifar.CIFAR10 if dataset == "cifar10" else cifar.CIFAR100
    x, y, test_x, test_y = cifar.read(kind, folder)
    return split(x, y, test_x, test_y, len(y) // 10, kind.classes, augment=True)


def split(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, held_out: int, classes: int, augment: bool) -> Dataset:
    """Take the last `held_out` training images for validation, and standardize by the others."""
    train, validation = x[:-held_out], x[-held_out:]
    pixels = train.float()
    mean, std = pixels.mean((0, 2, 3)).view(-1, 1, 1), pixels.std((0, 2, 3)).view(-1, 1, 1)
    return Dataset(
        Images(train, y[:-held_out], mean, std, augment),
        Images(validation, y[-held_out:], mean, std),
        Images(test_x, test_y, mean, std),
        x.shape[1],
        classes,
    )


def crop_and_flip(x: Tensor, generator: torch.Generator, margin: int = 4) -> Tensor:
    """Shift each image by up to `margin` pixels, with zeros around it, and mirror every other one, at random."""
    n, channels, height, width = x.shape
    padded = torch.nn.functional.pad(x, (margin,) * 4)
    top, left = torch.randint(2 * margin + 1, (2, n, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    image, channel = torch.arange(n).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return padded[image, channel, rows.view(n, 1, -1, 1), columns.view(n, 1, 1, -1)]
