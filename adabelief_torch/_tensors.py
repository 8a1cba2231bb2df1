"""The rule in PyTorch's own operations, for what NumPy's memory does not reach.

`update_foreach` is a copy of `adabelief_core.update` that works in place, many tensors an operation; `update_each`
calls `adabelief_core.update` itself, a tensor at a time, and is what `torch.compile` fuses. Neither uses addcmul,
addcdiv or lerp, which round once where the rule rounds twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adabelief_core import Coefficients, Variant, plain_product, update
from adabelief_torch._memory import has_memory

_CHUNK = 2**24
"""Elements worked on at once (one tensor at the least), so that the temporaries stay this small."""


class Tensors(NamedTuple):
    """One parameter's tensors, of one shape; complex ones as pairs of reals."""

    p: Tensor
    g: Tensor
    m: Tensor
    s: Tensor
    v: Tensor | None


class _Namespace:
    """What the core's rule asks of an array library."""

    abs = staticmethod(torch.abs)
    maximum = staticmethod(torch.maximum)
    zeros_like = staticmethod(torch.zeros_like)
    ones_like = staticmethod(torch.ones_like)

    @staticmethod
    def sqrt(x: Tensor) -> Tensor:
        return x.sqrt() if torch.compiler.is_compiling() else square_root(x)

    @staticmethod
    def where(condition: Any, a: Tensor, b: Tensor) -> Tensor:
        if isinstance(condition, Tensor):
            return torch.where(condition, a, b)
        return a if condition else b


def square_root(x: Tensor) -> Tensor:
    """√x, correctly rounded: torch.sqrt on a CPU is one ulp off for 0.65 % of float32 inputs."""
    if not has_memory(x):
        return torch.sqrt(x)
    root = torch.empty_like(x)
    np.sqrt(x.numpy(), out=root.numpy())
    return root


def update_each(
    batch: Sequence[Tensors], c: Coefficients, variant: Variant, product: Callable[[Tensor], Tensor] = plain_product
) -> None:
    """One step, a tensor at a time.

    Args:
        batch: The tensors; p, m, s and (under amsgrad) v are overwritten.
        c: NumPy's numbers, or 0-d tensors where a compiler must not take them for constants.
        variant: The lines of the rule that run.
        product: The guard of `adabelief_core.update`.
    """
    if not isinstance(c.scale, Tensor):
        c = _floats(c)
    for p, g, m, s, v in batch:
        wide = p.to(m.dtype)
        delta, new_m, new_s, new_v = update(wide, g.to(m.dtype), m, s, v, c, variant, xp=_Namespace, product=product)
        p.copy_(wide + delta)
        m.copy_(new_m)
        s.copy_(new_s)
        if v is not None:
            v.copy_(new_v)


def update_foreach(batch: Sequence[Tensors], c: Coefficients, variant: Variant) -> None:
    """One step, all tensors an operation: the order of `adabelief_core.update`.

    Args:
        batch: The tensors, of one device and one dtype each of p, g and the moments; p, m, s and (under amsgrad) v
            are overwritten.
        c: Numbers.
        variant: The lines of the rule that run.
    """
    c = _floats(c)
    for chunk in _chunks(batch):
        p, g, m, s = [x.p for x in chunk], [x.g for x in chunk], [x.m for x in chunk], [x.s for x in chunk]
        wide, g = _widened(p, m[0].dtype), _widened(g, m[0].dtype)
        v = s if not variant.amsgrad else [x.v for x in chunk]
        _update_chunk(wide, g, m, s, v, c, variant)
        if wide is not p:
            torch._foreach_copy_(p, wide)


def _update_chunk(p: Any, g: Any, m: Any, s: Any, v: Any, c: Coefficients, variant: Variant) -> None:
    if variant.maximize:
        g = torch._foreach_neg(g)
    if variant.decay == "coupled":
        g = torch._foreach_add(g, torch._foreach_mul(p, c.weight_decay))

    rest = torch._foreach_mul(g, c.rest1)
    torch._foreach_mul_(m, c.beta1)
    torch._foreach_add_(m, rest)
    _flush(m, c.smallest_normal)

    r = torch._foreach_sub(g, m)
    torch._foreach_mul_(r, r)
    torch._foreach_mul_(r, c.rest2)
    torch._foreach_mul_(s, c.beta2)
    torch._foreach_add_(s, r)
    torch._foreach_add_(s, c.eps_root)
    del r
    if variant.amsgrad:
        torch._foreach_maximum_(v, s)

    if variant.nesterov:
        u = torch._foreach_mul(m, c.look_ahead)
        torch._foreach_add_(u, rest)
    else:
        u = m
    del rest
    if c.adaptive:
        d = [square_root(x) for x in v] if has_memory(v[0]) else torch._foreach_sqrt(v)
        torch._foreach_mul_(d, c.belief_scale)
        torch._foreach_add_(d, c.eps)
        u = torch._foreach_div(u, d)
        del d
    u = torch._foreach_mul(u, c.scale)

    if variant.decay == "decoupled":
        torch._foreach_add_(u, torch._foreach_mul(p, c.weight_decay))
    torch._foreach_mul_(u, c.minus_lr)
    if variant.decay == "fixed":
        torch._foreach_sub_(u, torch._foreach_mul(p, c.weight_decay))
    torch._foreach_add_(p, u)


def _flush(m: Any, least: float) -> None:
    """Make what is smaller than `least` zero, without a comparison, which foreach has none of: m·0 + 0, or m·1 + 0."""
    kept = torch._foreach_abs(m)
    torch._foreach_sub_(kept, least)
    torch._foreach_sign_(kept)
    torch._foreach_add_(kept, 1.0)
    torch._foreach_clamp_max_(kept, 1.0)
    torch._foreach_mul_(m, kept)
    torch._foreach_add_(m, 0.0)


def _floats(c: Coefficients) -> Coefficients:
    return Coefficients._make([*map(float, c[:-1]), bool(c.adaptive)])


def _widened(xs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return xs if xs[0].dtype is dtype else [x.to(dtype) for x in xs]


def _chunks(batch: Sequence[Tensors]) -> Iterator[list[Tensors]]:
    chunk: list[Tensors] = []
    elements = 0
    for tensors in batch:
        if chunk and elements + tensors.p.numel() > _CHUNK:
            yield chunk
            chunk, elements = [], 0
        chunk.append(tensors)
        elements += tensors.p.numel()
    if chunk:
        yield chunk
