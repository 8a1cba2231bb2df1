"""Dtypes of the moments and of the arithmetic."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from adabelief_core import compute_dtype


class Dtypes(NamedTuple):
    """Dtypes in which the moments are kept, those of real numbers. None: the arithmetic's own."""

    mu: np.dtype | None
    nu: np.dtype | None

    @classmethod
    def of(cls, mu_dtype: Any, nu_dtype: Any) -> Dtypes:
        """Check what the user gave. Without x64, float64 is float32, as everywhere in JAX.

        Raises:
            TypeError: No dtype, or none that the rule works in; the message names the argument and the value.
        """
        return cls(_checked(mu_dtype, "mu_dtype"), _checked(nu_dtype, "nu_dtype"))

    def of_moments(self, leaf: Any) -> tuple[np.dtype, np.dtype]:
        """Dtypes of mu and nu for a parameter or gradient of this dtype.

        Raises:
            TypeError: No complex dtype has parts of the dtype asked for; the message names that.
        """
        mu, nu = (_kept_as(name, kept, leaf) for name, kept in zip(("mu_dtype", "nu_dtype"), self, strict=True))
        return mu, nu


def moment_dtype(dtype: Any) -> np.dtype | None:
    """Dtype in which the rule works on what is of this dtype, or None if it does not."""
    try:
        real = compute_dtype(np.dtype(dtype))
    except TypeError:
        return None
    return like(real, dtype)


def widest(*dtypes: Any) -> np.dtype:
    """The dtype of the arithmetic, a real one: that of the widest. None among them is none."""
    return max((compute_dtype(np.dtype(x)) for x in dtypes if x is not None), key=lambda dtype: dtype.itemsize)


def like(real: np.dtype, dtype: Any) -> np.dtype:
    """`real`, or the complex dtype of it where `dtype` is complex."""
    return np.result_type(real, np.complex64) if np.dtype(dtype).kind == "c" else real


def _checked(given: Any, name: str) -> np.dtype | None:
    if given is None:
        return None
    try:
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(given))
        fits = dtype.kind != "c" and bool(compute_dtype(dtype))
    except TypeError:
        fits = False
    if not fits:
        raise TypeError(f"Invalid {name}: {given!r} (expected float16, bfloat16, float32 or float64)")
    return dtype


def _kept_as(name: str, kept: np.dtype | None, leaf: Any) -> np.dtype:
    dtype = like(compute_dtype(np.dtype(leaf)), leaf)
    if kept is None:
        return dtype
    if dtype.kind == "c" and kept.itemsize == 2:
        raise TypeError(f"Invalid {name}: {kept} (there are {np.dtype(leaf)} leaves, and no complex dtype of {kept})")
    return like(kept, dtype)
