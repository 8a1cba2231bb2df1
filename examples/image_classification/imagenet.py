"""ImageNet, or any images in a folder a class, read while training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from examples.harness import DataError

SIZE, RESIZED = 224, 256
# Of ImageNet's pixels in [0, 1]; the numbers that PyTorch's ImageNet example uses, and the paper's code with it.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
HELD_OUT = 20  # every twentieth image of a class is for validation
SUFFIXES = (".jpeg", ".jpg", ".png")
THREADS = 8


@dataclass(frozen=True)
class Files:
    """A part of the dataset: paths, and classes (int64, shape (n,))."""

    paths: tuple[Path, ...]
    y: Tensor

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of training batches, float32 of shape (size, 3, 224, 224), cropped and flipped at random."""
        order = torch.randperm(len(self.y), generator=generator)
        batches = order.split(size)[: len(order) // size]
        # Drawn here, so that it does not matter which thread reads an image.
        yield from self.read(batches, [torch.rand(size, 5, generator=generator) for _ in batches])

    def ordered(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of it, in order, cropped in the middle."""
        batches = torch.arange(len(self.y)).split(size)
        yield from self.read(batches, [None] * len(batches))

    def read(self, batches: tuple[Tensor, ...], draws: list[Tensor | None]) -> Iterator[tuple[Tensor, Tensor]]:
        with ThreadPoolExecutor(THREADS) as pool:
            for chosen, draw in zip(batches, draws, strict=True):
                paths = [self.paths[i] for i in chosen.tolist()]
                numbers = [None] * len(paths) if draw is None else draw.tolist()
                yield torch.stack(list(pool.map(pixels, paths, numbers))), self.y[chosen]


def pixels(path: Path, draw: list[float] | None) -> Tensor:
    """One image, standardized, float32 of shape (3, 224, 224).

    Args:
        path: The file.
        draw: Five numbers in [0, 1): area, shape, left and top of a crop, and whether to flip it. None: the middle.

    Raises:
        DataError: The file is no image.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise DataError(f"Invalid image: {path} ({error})") from error
    if draw is None:
        scale = RESIZED / min(image.size)
        image = image.resize([max(RESIZED, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
        left, top = ((length - SIZE) // 2 for length in image.size)
        image = image.crop((left, top, left + SIZE, top + SIZE))
    else:
        image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, crop_box(image.size, *draw[:4]))
        if draw[4] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (values - MEAN) / STD


def crop_box(size: tuple[int, int], area: float, shape: float, left: float, top: float) -> tuple[float, ...]:
    """A box of 8 to 100 % of the area and 3:4 to 4:3 in shape (Szegedy et al., 2015), cut to fit the image."""
    width, height = size
    wanted = width * height * (0.08 + 0.92 * area)
    ratio = math.exp((2 * shape - 1) * math.log(4 / 3))
    w, h = min(width, math.sqrt(wanted * ratio)), min(height, math.sqrt(wanted / ratio))
    x, y = left * (width - w), top * (height - h)
    return x, y, x + w, y + h


def classes(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def read(folder: Path) -> tuple[Files, Files, Files]:
    """Find the images of `folder`/train and `folder`/val; the latter are the test part.

    Returns:
        Train, validation (every twentieth image of each class of train/) and test part.

    Raises:
        DataError: There is no such folder, the classes differ, or one has too few images.
    """
    names, test_names = classes(folder / "train"), classes(folder / "val")
    if not names or names != test_names:
        raise DataError(
            f"Invalid --data: {folder} (expected train/CLASS/*.JPEG and val/CLASS/*.JPEG with the same classes; "
            f"found {len(names)} in train and {len(test_names)} in val)"
        )
    train, test = listed(folder / "train", names, HELD_OUT), listed(folder / "val", names, 1)
    held_out = [[path for i, path in enumerate(paths) if i % HELD_OUT == HELD_OUT - 1] for paths in train]
    kept = [[path for i, path in enumerate(paths) if i % HELD_OUT != HELD_OUT - 1] for paths in train]
    return tuple(
        Files(
            tuple(path for paths in part for path in paths),
            torch.tensor([number for number, paths in enumerate(part) for _ in paths]),
        )
        for part in (kept, held_out, test)
    )


def listed(folder: Path, names: list[str], least: int) -> list[list[Path]]:
    """The sorted images of each class, at least as many as said."""
    found = []
    for name in names:
        found.append(sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES))
        if len(found[-1]) < least:
            raise DataError(
                f"Invalid --data: {folder / name} has {len(found[-1])} images (expected at least {least}, "
                f"{', '.join(SUFFIXES)})"
            )
    return found
