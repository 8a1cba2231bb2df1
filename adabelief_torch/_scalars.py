"""The numbers of a step as tensors, where the host must not read the step count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adabelief_core import Coefficients, Tables, assemble, plain_product, step_scalars, tables
from adabelief_torch._options import Numbers, Options
from adabelief_torch._tensors import Namespace

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


class _Traced(NamedTuple):
    """What `step_scalars` reads of hyperparameters, with betas that a graph takes as data."""

    betas: tuple[Tensor, Tensor]
    rectify: bool
    degenerated_to_sgd: bool


def tensor_coefficients(
    options: Options, steps: Sequence[Tensor], dtype: torch.dtype, device: torch.device, guarded: bool = False
) -> tuple[list[Coefficients], Callable[[Tensor], Tensor]]:
    """The coefficients of each parameter's step.

    Args:
        options: The group's.
        steps: Each parameter's step count, this step counted: 0-d tensors of one device.
        dtype: Compute dtype, float32 or float64.
        device: Where the coefficients are wanted.
        guarded: Whether a compiler is at work, which may contract products.

    Returns:
        Coefficients whose numbers are 0-d tensors where the step decides them, else Python's; and the guard of
        products for `adabelief_core.update`.
    """
    t = torch.stack([step.reshape(()) for step in steps]).to(torch.float64)
    # A -0.0 that the compiler cannot know to be one: it contracts a guarded product with it, and rounds the same.
    zero = -torch.clamp_max(t[0], 0.0)
    narrow = zero.to(device, dtype)
    h: Any = options.h
    numbers, known = options.numbers, _known(h.betas, t.device)
    betas = None
    if any(isinstance(beta, Tensor) for beta in numbers.betas):
        betas = tuple(torch.as_tensor(beta, dtype=t.dtype, device=t.device).reshape(1) for beta in numbers.betas)
        numbers = numbers._replace(betas=betas)
    elif torch.compiler.is_compiling():
        # The compiler computes with changing numbers in another order than with tensors.
        h = _Traced((known.beta1[0][0], known.beta2[0][0]), h.rectify, h.degenerated_to_sgd)
        n = numbers
        numbers = Numbers(n.lr, h.betas, n.eps, n.eps_root, n.weight_decay, n.update_clip, n.variant)
    scalars = step_scalars(
        t,
        h,
        betas=betas,
        known=known,
        xp=Namespace,
        product=(lambda x: x + zero) if guarded else plain_product,
    )
    c = assemble(numbers, scalars, numbers.lr, _NAMES[dtype], _caster(device, dtype))
    if isinstance(c.adaptive, Tensor):
        c = c._replace(adaptive=c.adaptive.to(device))
    each = [[x[i % len(x)] if isinstance(x, Tensor) and x.ndim else x for x in c] for i in range(len(steps))]
    return [Coefficients(*row) for row in each], (lambda x: x + narrow) if guarded else plain_product


def _caster(device: torch.device, dtype: torch.dtype) -> Callable[[Any], Any]:
    """Rounds a tensor; a Python number is rounded once where a tensor of the dtype meets it."""
    return lambda x: x.to(device=device, dtype=dtype) if isinstance(x, Tensor) else x


def _known(betas: tuple[float, float], device: torch.device) -> Tables:
    if not torch.compiler.is_compiling():
        return _tables(betas, device)
    # Not the numbers, of which the compiler would make constants, and a graph each.
    x = _packed(torch.stack([torch.full((), beta, dtype=torch.float64) for beta in betas]), device)
    return Tables((x[:32], x[32:64]), (x[64:96], x[96:128]), x[128], x[129:])


@lru_cache(maxsize=256)
def _tables(betas: tuple[float, float], device: torch.device) -> Tables:
    host = tables(betas)
    (powers1, complements1), (powers2, complements2), place = (
        [torch.tensor(x, device=device)[:, None] for x in pair] for pair in (host.beta1, host.beta2, [host.place])
    )
    return Tables((powers1, complements1), (powers2, complements2), host.switch, place[0])


@torch.library.custom_op("adabelief::tables", mutates_args=())
def _packed(betas: Tensor, device: torch.device) -> Tensor:
    """The tables in one column: what a compiler must not look into, and what changes with a scheduler of betas."""
    host = tables(tuple(betas.tolist()))
    switch = math.inf if host.switch is None else host.switch
    return torch.tensor(np.concatenate([*host.beta1, *host.beta2, [switch], host.place]), device=device)[:, None]


@_packed.register_fake
def _(betas: Tensor, device: torch.device) -> Tensor:
    return torch.empty((162, 1), dtype=torch.float64, device=device)
