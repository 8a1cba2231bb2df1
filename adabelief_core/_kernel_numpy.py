"""The rule on one block of memory, in place, in NumPy: the order of `adabelief_core.update`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from adabelief_core._hyperparameters import Variant
from adabelief_core._rule import Coefficients, compensated, update

if TYPE_CHECKING:
    from adabelief_core._inplace import Job

BLOCK = 131_072
"""Elements a block: small enough for the cache, large enough that threads seldom wait for the interpreter's lock."""

_free: defaultdict[str, list[np.ndarray]] = defaultdict(list)
"""Scratch of three blocks each that no thread is using, by dtype. Taking and putting back are atomic."""


def blocked(job: Job) -> Callable[..., None]:
    """The job's step, on arrays p, g, m, s, v, k of the compute dtype and of `BLOCK` elements at the most.

    All but g are overwritten, v under amsgrad and k under kahan.
    """
    c, variant, stored = job.c, job.variant, _stored(job.p.dtype)

    def step(p: np.ndarray, *others: np.ndarray) -> None:
        free = _free[p.dtype.char]
        try:
            scratch = free.pop()
        except IndexError:
            scratch = np.empty((3, BLOCK), p.dtype)
        _step(c, variant, stored, scratch[:, : p.size], p, *others)
        free.append(scratch)

    return step


def _stored(dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """Rounds to the dtype and back; in place where that is the compute dtype."""
    return lambda x: x if x.dtype == dtype else x.astype(dtype).astype(x.dtype)


def _step(  # noqa: PLR0915 - one rule
    c: Coefficients,
    variant: Variant,
    stored: Callable[[np.ndarray], np.ndarray],
    scratch: np.ndarray,
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    s: np.ndarray,
    v: np.ndarray,
    k: np.ndarray,
) -> None:
    a, b, e = scratch
    if variant.maximize:
        g = np.negative(g, out=e)
    if variant.decay == "coupled":
        np.multiply(p, c.weight_decay, out=a)
        g = np.add(g, a, out=e)

    np.multiply(m, c.beta1, out=m)
    np.multiply(g, c.rest1, out=a)
    np.add(m, a, out=m)
    np.abs(m, out=a)
    # Mostly nothing is small. A NaN, of which the minimum is one too, only costs the closer look.
    if not a.min() >= c.smallest_normal:
        np.copyto(m, 0, where=a < c.smallest_normal)

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
    if variant.clip:
        n = np.clip(n, -c.update_clip, c.update_clip, out=a)
    u = np.multiply(n, c.scale, out=a)

    if variant.decay == "decoupled":
        np.multiply(p, c.weight_decay, out=b)
        np.add(u, b, out=u)
    np.multiply(u, c.minus_lr, out=u)
    if variant.decay == "fixed":
        np.multiply(p, c.weight_decay, out=b)
        np.subtract(u, b, out=u)
    if variant.kahan:
        np.add(k, u, out=u)
        new = stored(np.add(p, u, out=b))
        np.subtract(p, new, out=e)
        np.add(u, e, out=k)
        np.copyto(p, new)
    else:
        np.add(p, u, out=p)


def readable(job: Job) -> Callable[..., None]:
    """The same step by the rule itself, for comparison: it allocates an array an operation."""
    c, variant, stored = job.c, job.variant, _stored(job.p.dtype)

    def step(p: np.ndarray, g: np.ndarray, m: np.ndarray, s: np.ndarray, v: np.ndarray, k: np.ndarray) -> None:
        delta, m[...], s[...], new_v = update(p, g, m, s, v, c, variant)
        if variant.amsgrad:
            v[...] = new_v
        if variant.kahan:
            delta, k[...] = compensated(p, delta, k, stored=stored)
        p += delta

    return step
