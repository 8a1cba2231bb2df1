"""The rule on one block of memory, in place, in NumPy: the order of `adabelief_core.update`."""

from __future__ import annotations

import threading

import numpy as np

from adabelief_core._hyperparameters import Variant
from adabelief_core._rule import Coefficients, update

BLOCK = 32_768
"""Elements a block: seven float32 arrays of it stay in a core's second-level cache."""

_local = threading.local()


def _scratch(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Three blocks of scratch and one of flags, this thread's own, kept for its next block."""
    buffers: dict[str, tuple[np.ndarray, np.ndarray]] = _local.__dict__
    if dtype.char not in buffers:
        buffers[dtype.char] = np.empty((3, BLOCK), dtype), np.empty(BLOCK, bool)
    return buffers[dtype.char]


def blocked(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, s: np.ndarray, v: np.ndarray, c: Coefficients, variant: Variant
) -> None:
    """One step on arrays of at most `BLOCK` elements; p, m, s and (under amsgrad) v are overwritten."""
    floats, flags = _scratch(p.dtype)
    a, b, e = floats[:, : p.size]
    if variant.maximize:
        g = np.negative(g, out=e)
    if variant.decay == "coupled":
        np.multiply(p, c.weight_decay, out=a)
        g = np.add(g, a, out=e)

    np.multiply(m, c.beta1, out=m)
    np.multiply(g, c.rest1, out=a)
    np.add(m, a, out=m)
    np.abs(m, out=a)
    small = np.less(a, c.smallest_normal, out=flags[: p.size])
    if small.any():
        np.copyto(m, 0, where=small)

    np.subtract(g, m, out=a)
    np.multiply(a, a, out=a)
    np.multiply(a, c.rest2, out=a)
    np.multiply(s, c.beta2, out=s)
    np.add(s, a, out=s)
    np.add(s, c.eps_root, out=s)
    if variant.amsgrad:
        np.maximum(v, s, out=v)
    else:
        v = s

    if variant.nesterov:
        n = np.multiply(m, c.look_ahead, out=a)
        np.multiply(g, c.rest1, out=b)
        np.add(n, b, out=n)
    else:
        n = m
    if c.adaptive:
        np.sqrt(v, out=b)
        np.multiply(b, c.belief_scale, out=b)
        np.add(b, c.eps, out=b)
        n = np.divide(n, b, out=a)
    u = np.multiply(n, c.scale, out=a)

    if variant.decay == "decoupled":
        np.multiply(p, c.weight_decay, out=b)
        np.add(u, b, out=u)
    np.multiply(u, c.minus_lr, out=u)
    if variant.decay == "fixed":
        np.multiply(p, c.weight_decay, out=b)
        np.subtract(u, b, out=u)
    np.add(p, u, out=p)


def readable(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, s: np.ndarray, v: np.ndarray, c: Coefficients, variant: Variant
) -> None:
    """The same step by the rule itself, for comparison: it allocates an array an operation."""
    delta, m[...], s[...], new_v = update(p, g, m, s, v, c, variant)
    if variant.amsgrad:
        v[...] = new_v
    p += delta
