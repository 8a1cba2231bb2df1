"""What a run needs to go on."""

from __future__ import annotations

import os
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adabelief_core._hyperparameters import Hyperparameters
from adabelief_core._inplace import compute_dtype

if TYPE_CHECKING:
    from adabelief_core.portable._moves import Mapping

ARRAYS = ("p", "m", "s", "v", "k")
"""The fields of an `Entry` that are arrays."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One parameter and its state. All arrays have the parameter's shape.

    Raises:
        ValueError, TypeError: The fields do not fit together; the message names the field.
    """

    step: int
    """Steps taken."""
    p: np.ndarray
    """Parameter: float16, bfloat16 (ml_dtypes), float32, float64, complex64 or complex128."""
    m: np.ndarray
    """First moment: float32, or float64 or complex as the parameter."""
    s: np.ndarray
    """Second moment of the surprise, g - m, of the dtype of m; ε_root is in it."""
    v: np.ndarray | None = None
    """Largest s so far, under amsgrad."""
    k: np.ndarray | None = None
    """Compensation of the parameter's sum, under kahan_sum."""
    h: Hyperparameters | None = None
    """Hyperparameters of the last step, `lr` the learning rate. None: not known (Optax keeps them to itself)."""

    def __post_init__(self) -> None:
        if isinstance(self.step, bool) or not isinstance(self.step, int) or self.step < 0:
            raise ValueError(f"Invalid step: {self.step!r} (expected an integer >= 0)")
        real = compute_dtype(self.p.dtype)
        moment = np.result_type(real, np.complex64) if self.p.dtype.kind == "c" else real
        for key in ARRAYS[1:]:
            x = getattr(self, key)
            if x is not None and (x.shape != self.p.shape or x.dtype != moment):
                expected = f"{moment} of shape {list(self.p.shape)}"
                raise ValueError(f"Invalid {key}: {x.dtype} of shape {list(x.shape)} (expected {expected})")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run of AdaBelief at rest: name of a parameter to its `Entry`.

    Args:
        entries: The parameters.

    Examples:
        >>> from adabelief_core import AdaBelief
        >>> from adabelief_core.portable import Snapshot, restore, snapshot
        >>> optimizer = AdaBelief({"w": np.ones(2)}, lr=0.1)
        >>> optimizer.step({"w": np.array([0.5, 0.0])})
        >>> taken = snapshot(optimizer)
        >>> taken.entries["w"].step, taken.hyperparameters.lr
        (1, 0.1)
        >>> other = {"w": np.zeros(2)}
        >>> restore(AdaBelief(other, lr=0.1), taken)
        >>> other["w"].round(4).tolist()
        [0.8889, 1.0]
    """

    entries: MappingABC[str, Entry]

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Those that all parameters share.

        Raises:
            ValueError: They are not known, or two parameters have different ones.
        """
        found: dict[Hyperparameters | None, str] = {}
        for name, entry in self.entries.items():
            found.setdefault(entry.h, name)
        if len(found) != 1 or None in found:
            names = ", ".join(map(repr, found.values()))
            raise ValueError(f"There are no hyperparameters that all parameters share (see entries of {names})")
        (h,) = found
        assert h is not None
        return h

    def moved(self, mapping: Mapping) -> Snapshot:
        """The same run under other names and in other layouts.

        Args:
            mapping: Name to new name or `Move`, for each parameter: a table or a function. `layers` makes one.

        Raises:
            ValueError: A parameter has no place in the mapping, or a name of the mapping no parameter; two parameters
                would get one name; or a layout does not fit a parameter's shape.
        """
        from adabelief_core.portable._moves import moved

        return Snapshot(moved(self.entries, mapping))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one `.safetensors` file: the whole of it, or, if the process is killed, nothing.

        Args:
            path: File to write; one that is there is replaced. Its folder must exist.

        Raises:
            OSError: The file cannot be written.
        """
        from adabelief_core.portable._file import save

        save(self.entries, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Read what `save` wrote.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no such file, of a newer version, truncated or altered.
            ModuleNotFoundError: It holds bfloat16, which NumPy knows from ml_dtypes alone.
        """
        from adabelief_core.portable._file import load

        return cls(load(path))
