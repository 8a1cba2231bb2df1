"""CIFAR-10 and CIFAR-100 from a local folder, in the form that their authors distribute for Python."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

from examples.harness._experiment import DataError


@dataclass(frozen=True)
class Kind:
    """One of the two datasets: its folder, files, the key of the labels, and the number of classes."""

    folder: str
    train: tuple[str, ...]
    test: str
    labels: bytes
    classes: int


CIFAR10 = Kind("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", b"labels", 10)
CIFAR100 = Kind("cifar-100-python", ("train",), "test", b"fine_labels", 100)


class Unpickler(pickle.Unpickler):
    """Builds NumPy arrays and the plain types, and refuses all else: a pickle could run any code."""

    ALLOWED: ClassVar = {
        # The module has NumPy 1's name in these files.
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return self.ALLOWED[module, name]


def unpickle(file: BinaryIO) -> Any:
    """Load a pickle of Python 2, whose strings become bytes."""
    return Unpickler(file, encoding="bytes").load()


def read(kind: Kind, folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read a dataset.

    Args:
        kind: `CIFAR10` or `CIFAR100`.
        folder: The folder of the files, or the one around it.

    Returns:
        Training images (uint8, shape (n, 3, 32, 32)), training labels (int64, shape (n,)), and the same of the test.

    Raises:
        DataError: A file is missing, or does not hold what it should.
    """
    inner = folder / kind.folder
    inner = inner if inner.is_dir() else folder
    missing = [name for name in (*kind.train, kind.test) if not (inner / name).is_file()]
    if missing:
        raise DataError(
            f"Invalid --data: {folder} (expected the folder {kind.folder} or the one around it, with the files "
            f"{', '.join((*kind.train, kind.test))}; missing: {', '.join(missing)})"
        )
    parts = [read_file(kind, inner / name) for name in kind.train]
    x, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return x, y, *read_file(kind, inner / kind.test)


def read_file(kind: Kind, path: Path) -> tuple[Tensor, Tensor]:
    """Images and labels of one file."""
    expected = f"expected a pickled dict of b'data', uint8 of shape (n, 3072), and {kind.labels!r}"
    try:
        with path.open("rb") as file:
            content = unpickle(file)
    # What a damaged pickle raises is any of these.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"Invalid file: {path} ({expected}; {error})") from error
    data, labels = (content.get(key) if isinstance(content, dict) else None for key in (b"data", kind.labels))
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
        raise DataError(f"Invalid file: {path} ({expected})")
    if not (isinstance(labels, list) and len(labels) == len(data) and set(labels) <= set(range(kind.classes))):
        raise DataError(f"Invalid file: {path} (expected {len(data)} labels from 0 to {kind.classes - 1})")
    return torch.from_numpy(data.reshape(-1, 3, 32, 32)), torch.tensor(labels)
