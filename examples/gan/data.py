"""The real images: scikit-learn's digits, or CIFAR-10 from a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from examples.harness import cifar


@dataclass(frozen=True)
class Images:
    """Square images, uint8, shape (images, colours, size, size).

    Attributes:
        train: What the networks see, and what learning rates are chosen by.
        labels: The classes of `train`, int64, shape (images,).
        test: Other images, for the judgement alone.
    """

    train: Tensor
    labels: Tensor
    test: Tensor


@cache
def load(dataset: str, folder: Path | None) -> Images:
    """The images of a data set.

    Args:
        dataset: "digits" (1,797 images of 8×8 pixels, the first 898 of a fixed random order to train) or "cifar10"
            (60,000 of 32×32, 50,000 to train).
        folder: Where CIFAR-10 is; None for digits.

    Raises:
        DataError: The folder does not hold CIFAR-10.
    """
    if dataset == "digits":
        raw = load_digits()
        order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
        x = torch.from_numpy(raw.images * 255 / 16).to(torch.uint8).unsqueeze(1)[order]
        half = len(x) // 2
        return Images(x[:half], torch.from_numpy(raw.target).long()[order[:half]], x[half:])
    x, y, test, _ = cifar.read(cifar.CIFAR10, folder)
    return Images(x, y, test)


def scaled(images: Tensor) -> Tensor:
    """uint8 pixels to float32 in [-1, 1], which is what the generator's tanh gives.

    >>> scaled(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return images.float() / 127.5 - 1


def batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Batches of float32 images without end, in a new random order each time all have been seen."""
    while True:
        for chosen in torch.randperm(len(images))[: len(images) // size * size].split(size):
            yield scaled(images[chosen])
