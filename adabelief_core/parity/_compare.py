"""Bitwise comparison of arrays, in units in the last place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """How two arrays differ."""

    count: int
    """Elements whose bits differ."""
    ulps: int
    """The largest distance, in representable numbers between the two; a NaN against a number is 2^63 - 1."""


_NAN = 2**63 - 1


def compare(a: np.ndarray, b: np.ndarray) -> Difference:
    """Compare bits. All NaNs are one value: IEEE 754 leaves their sign and payload open.

    Args:
        a: An array, floating or complex.
        b: An array of the same shape and dtype.

    Raises:
        ValueError: Another shape or dtype.

    Examples:
        >>> from adabelief_core.parity import compare
        >>> compare(np.float32([1, 2]), np.float32([1, np.nextafter(np.float32(2), np.float32(3))]))
        Difference(count=1, ulps=1)
        >>> compare(np.zeros(1), -np.zeros(1)).count
        1
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"cannot compare {a.dtype}{list(a.shape)} with {b.dtype}{list(b.shape)}")
    if a.tobytes() == b.tobytes():
        return Difference(0, 0)
    if a.dtype.kind == "c":
        a, b = (np.stack([x.real, x.imag]) for x in (a, b))
    integer = np.dtype(f"i{a.dtype.itemsize}")
    x, y = (np.ascontiguousarray(v).view(integer) for v in (a, b))
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    differ = (x != y) & ~(nan_a & nan_b)
    count = int(differ.sum())
    if not count:
        return Difference(0, 0)
    if (differ & (nan_a | nan_b)).any():
        return Difference(count, _NAN)
    return Difference(count, max(abs(_rank(i) - _rank(j)) for i, j in zip(x[differ], y[differ], strict=True)) or 1)


def _rank(bits: np.integer) -> int:
    """Where a float stands among all floats: consecutive integers for consecutive floats, 0 for ±0."""
    value = int(bits)
    return value if value >= 0 else -(value & (2 ** (8 * bits.dtype.itemsize - 1) - 1))
