"""The table that the Triton kernels read: 64-bit integers, on the device of the tensors.

`HEADER` numbers that all tensors share come first, floats as the bits of a float64: the powers of β1 and their
complements, those of β2, and single numbers. Then columns of an entry a tensor: its step's address, its size, its first
block, and the addresses of p, g, m, s and, where they are there, v and k.
"""

from __future__ import annotations

import weakref
from functools import lru_cache

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from adabelief_core import Hyperparameters, StepScalars, assemble
from adabelief_core._scalars import power_table, switch_step

BLOCK = 1024
"""Elements to a block, the work of a program."""

# Places in the header.
BITS = tl.constexpr(32)
BETA1 = tl.constexpr(128)
REST1 = tl.constexpr(129)
LIMIT = tl.constexpr(130)
SWITCH = tl.constexpr(131)
NUMBERS = tl.constexpr(132)
"""Where the numbers of `Coefficients` that no step changes begin, rounded to the compute dtype."""
SHARED = tl.constexpr(16)
"""Places for them, a power of two; there are nine."""
HEADER = tl.constexpr(148)

# Columns.
STEP = tl.constexpr(0)
SIZE = tl.constexpr(1)
FIRST = tl.constexpr(2)
ADDRESSES = tl.constexpr(3)

_CASTS = {torch.float32: np.float32, torch.float64: np.float64}
_NEVER = 2**62
"""A step that none comes to."""


def device_table(
    header: tuple[int, ...], sizes: tuple[int, ...], addresses: tuple[int, ...], step: Tensor
) -> tuple[Tensor, int]:
    """The table on the device of `step`, and the number of blocks.

    Args:
        header: What `header` returns.
        sizes: Elements of each tensor.
        addresses: Of all steps, all p, all g, all m, all s, and so on.
        step: One of the steps. Where a CUDA graph is captured, the host's copy of the table lives as long.

    Raises:
        RuntimeError: A graph is captured before any table was made outside of one.
    """
    if not step.is_cuda:
        table, blocks = _host_table(header, sizes, addresses)
        return torch.from_numpy(table), blocks
    if not torch.cuda.is_current_stream_capturing():
        # Memory goes back to the stream that it came from: each has tables of its own.
        uploaded, blocks = _uploaded(header, sizes, addresses, step.device, torch.cuda.current_stream().cuda_stream)
        _reserve.fill(uploaded.numel())
        return uploaded, blocks
    table, blocks = _host_table(header, sizes, addresses)
    pinned = _reserve.take(table.size).copy_(torch.from_numpy(table))
    # Each replay reads it. No graph can be replayed when the state is gone that it works on.
    weakref.finalize(step, _let_go, pinned).atexit = False
    return pinned.to(step.device, non_blocking=True), blocks


@lru_cache(maxsize=64)
def _uploaded(
    header: tuple[int, ...], sizes: tuple[int, ...], addresses: tuple[int, ...], device: torch.device, stream: int
) -> tuple[Tensor, int]:
    table, blocks = _host_table(header, sizes, addresses)
    return torch.from_numpy(table).pin_memory().to(device, non_blocking=True), blocks


def _host_table(header: tuple[int, ...], sizes: tuple[int, ...], addresses: tuple[int, ...]) -> tuple[np.ndarray, int]:
    # One block at the least: it counts the step.
    blocks = np.maximum(-(-np.array(sizes, np.int64) // BLOCK), 1)
    first = np.cumsum(blocks) - blocks
    n = len(sizes)
    return np.concatenate([header, addresses[:n], sizes, first, addresses[n:]], dtype=np.int64), int(blocks.sum())


@lru_cache(maxsize=256)
def header(
    betas: tuple[float, float],
    eps: float,
    eps_root: float | None,
    weight_decay: float,
    update_clip: float | None,
    dtype: torch.dtype,
) -> tuple[int, ...]:
    """What the table begins with: all numbers but the learning rate.

    Args:
        betas, eps, eps_root, weight_decay, update_clip: Those of `Hyperparameters`.
        dtype: Compute dtype.
    """
    h = Hyperparameters(betas=betas, eps=eps, eps_root=eps_root, weight_decay=weight_decay, update_clip=update_clip)
    cast = _CASTS[dtype]
    c = assemble(h, StepScalars(0, 0, 0, True), 0, cast, cast)
    beta1, beta2 = betas
    powers = np.concatenate([*power_table(beta1), *power_table(beta2)])
    singles = np.array([beta1, 1.0 - beta1, 2.0 / (1.0 - beta2) - 1.0])
    shared = np.zeros(SHARED.value)
    shared[:9] = [*c[:8], c.smallest_normal]
    switch = np.array([switch_step(beta2) or _NEVER])
    return tuple(np.concatenate([x.view(np.int64) for x in (powers, singles, switch, shared)]).tolist())


class _Reserve:
    """Pinned memory for the tables of captured steps: while a graph is captured, some versions of torch give none."""

    def __init__(self) -> None:
        self._free = torch.empty(0, dtype=torch.int64)

    def fill(self, size: int) -> None:
        """See that there is enough for some tables of this size."""
        if self._free.numel() < 4 * size:
            self._free = torch.empty(max(16 * size, 2**17), dtype=torch.int64, pin_memory=True)

    def take(self, size: int) -> Tensor:
        """Memory that nobody else will write."""
        if self._free.numel() < size:
            raise RuntimeError(
                "AdaBelief(fused=True) can be captured in a CUDA graph only after a step outside of one, which "
                "compiles its kernels and sets memory aside"
            )
        taken, self._free = self._free[:size], self._free[size:]
        return taken


def _let_go(_: Tensor) -> None:
    """Keep a tensor until another one dies."""


_reserve = _Reserve()
