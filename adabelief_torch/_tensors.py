"""The rule in PyTorch's own operations, for what the core's kernels do not reach.

`update_foreach` is a copy of `adabelief_core.update` that works in place, many tensors an operation; `update_each`
calls `adabelief_core.update` itself, a tensor at a time: autograd can record it, and `torch.compile` fuses it. Neither
uses addcmul, addcdiv or lerp, which round once where the rule rounds twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adabelief_core import Coefficients, Variant, compensated, plain_product, update
from adabelief_torch._memory import has_memory

_CHUNK = 2**24
"""Elements worked on at once (one tensor at the least), so that the temporaries stay this small."""


class Tensors(NamedTuple):
    """One parameter's tensors, of one shape; complex ones as pairs of reals."""

    p: Tensor
    g: Tensor
    m: Tensor
    s: Tensor
    v: Tensor | None = None
    k: Tensor | None = None


class Namespace:
    """What the core's rule and scalars ask of an array library."""

    abs = staticmethod(torch.abs)
    clip = staticmethod(torch.clamp)
    floor = staticmethod(torch.floor)
    stack = staticmethod(torch.stack)
    zeros_like = staticmethod(torch.zeros_like)
    ones_like = staticmethod(torch.ones_like)

    @staticmethod
    def maximum(a: Tensor, b: Any) -> Tensor:
        return torch.maximum(a, b) if isinstance(b, Tensor) else torch.clamp_min(a, b)

    @staticmethod
    def sqrt(x: Tensor) -> Tensor:
        # A compiler's is correctly rounded, and so are those of other devices.
        return x.sqrt() if torch.compiler.is_compiling() or not has_memory(x) else _SquareRoot.apply(x)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        if isinstance(condition, Tensor):
            return torch.where(condition, a, b)
        return a if condition else b


class _SquareRoot(torch.autograd.Function):
    """√x, correctly rounded: torch.sqrt on a CPU is one ulp off for 0.65 % of float32 inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = square_root(x)
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return gradient / (2 * root)


def square_root(x: Tensor) -> Tensor:
    """√x of a tensor in this process's memory, correctly rounded."""
    x = x.detach()
    root = torch.empty_like(x)
    np.sqrt(x.numpy(), out=root.numpy())
    return root


def update_each(
    batch: Sequence[Tensors],
    cs: Sequence[Coefficients],
    variant: Variant,
    product: Callable[[Tensor], Tensor] = plain_product,
) -> None:
    """One step, a tensor at a time.

    Args:
        batch: The tensors; p, m, s and, where they are there, v and k are overwritten.
        cs: Each tensor's coefficients: Python's numbers, or 0-d tensors.
        variant: The lines of the rule that run.
        product: The guard of `adabelief_core.update`.
    """
    for tensors, c in zip(batch, cs, strict=True):
        p, g, *state = tensors
        dtype = tensors.m.dtype
        wide = p.to(dtype)
        if torch.is_grad_enabled():
            # What autograd saves of them must outlive the writing below.
            wide, *state = (None if x is None else x.clone() for x in (wide, *state))
        m, s, v, k = state
        delta, m, s, v = update(wide, g.to(dtype), m, s, v, c, variant, xp=Namespace, product=product)
        if variant.kahan:
            delta, k = compensated(wide, delta, k, stored=_rounder(p.dtype))
        p.copy_(wide + delta)
        for old, new in zip(tensors[2:], (m, s, v, k), strict=True):
            if old is not None:
                old.copy_(new)


def _rounder(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    if dtype.itemsize == 2 and torch.compiler.is_compiling():
        return lambda x: _rounded(x, dtype)
    return lambda x: x.to(dtype).to(x.dtype)


# A compiler that looks into it drops the conversion there and back.
@torch.library.custom_op("adabelief::rounded", mutates_args=())
def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).to(x.dtype)


@_rounded.register_fake
def _(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x)


def update_foreach(batch: Sequence[Tensors], cs: Sequence[Coefficients], variant: Variant) -> None:
    """One step, all tensors an operation: the order of `adabelief_core.update`.

    Args:
        batch: The tensors, of one device and one dtype each of p, g and the moments; p, m, s and, where they are
            there, v and k are overwritten.
        cs: Each tensor's coefficients: one and the same, of Python's numbers, or of 0-d tensors.
        variant: The lines of the rule that run.
    """
    for chunk, c in _chunks(batch, cs):
        p, g, m, s = [x.p for x in chunk], [x.g for x in chunk], [x.m for x in chunk], [x.s for x in chunk]
        wide, g = _widened(p, m[0].dtype), _widened(g, m[0].dtype)
        v = [x.v for x in chunk] if variant.amsgrad else s
        k = [x.k for x in chunk] if variant.kahan else None
        _update_chunk(p, wide, g, m, s, v, k, c, variant)
        if wide is not p:
            torch._foreach_copy_(p, wide)


def _update_chunk(stored: Any, p: Any, g: Any, m: Any, s: Any, v: Any, k: Any, c: Any, variant: Variant) -> None:
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
    if c.adaptive is not False:
        d = [square_root(x) for x in v] if has_memory(v[0]) else torch._foreach_sqrt(v)
        torch._foreach_mul_(d, c.belief_scale)
        torch._foreach_add_(d, c.eps)
        if c.adaptive is not True:
            d = [torch.where(adaptive, x, 1.0) for adaptive, x in zip(c.adaptive, d, strict=True)]
        u = torch._foreach_div(u, d)
        del d
    if variant.clip:
        u = torch._foreach_clamp_min(u, -c.update_clip)
        torch._foreach_clamp_max_(u, c.update_clip)
    u = torch._foreach_mul(u, c.scale)

    if variant.decay == "decoupled":
        torch._foreach_add_(u, torch._foreach_mul(p, c.weight_decay))
    torch._foreach_mul_(u, c.minus_lr)
    if variant.decay == "fixed":
        torch._foreach_sub_(u, torch._foreach_mul(p, c.weight_decay))
    if not variant.kahan:
        torch._foreach_add_(p, u)
        return
    torch._foreach_add_(u, k)
    new = torch._foreach_add(p, u)
    if stored is not p:
        new = [x.to(y.dtype).to(x.dtype) for x, y in zip(new, stored, strict=True)]
    torch._foreach_sub_(p, new)
    torch._foreach_copy_(k, torch._foreach_add(u, p))
    torch._foreach_copy_(p, new)


def _flush(m: Any, least: float) -> None:
    """Make what is smaller than `least` zero, without a comparison, which foreach has none of: m·0 + 0, or m·1 + 0."""
    kept = torch._foreach_abs(m)
    torch._foreach_sub_(kept, least)
    torch._foreach_sign_(kept)
    torch._foreach_add_(kept, 1.0)
    torch._foreach_clamp_max_(kept, 1.0)
    torch._foreach_mul_(m, kept)
    torch._foreach_add_(m, 0.0)


def _widened(xs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return xs if xs[0].dtype is dtype else [x.to(dtype) for x in xs]


def _chunks(batch: Sequence[Tensors], cs: Sequence[Coefficients]) -> Iterator[tuple[list[Tensors], Coefficients]]:
    start = elements = 0
    for end, tensors in enumerate(batch):
        if start < end and elements + tensors.p.numel() > _CHUNK:
            yield list(batch[start:end]), _joined(cs[start:end])
            start, elements = end, 0
        elements += tensors.p.numel()
    yield list(batch[start:]), _joined(cs[start:])


def _joined(cs: Sequence[Coefficients]) -> Coefficients:
    """Lists of tensors, of which a foreach operation takes one for each of its tensors; numbers as they are."""
    return Coefficients._make([list(xs) if isinstance(xs[0], Tensor) else xs[0] for xs in zip(*cs, strict=True)])
