"""The Triton kernel that computes the scalars of a step, for many tensors that may be at different steps."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from adabelief_core import LAST_STEP as _LAST_STEP
from adabelief_torch._triton_table import BETA1, BITS, HEADER, LIMIT, NUMBERS, REST1, SHARED, STEP, SWITCH

ROWS = 16
"""Tensors a program works on."""

LAST_STEP = tl.constexpr(_LAST_STEP)

# Columns of the scalars.
MINUS_LR = tl.constexpr(0)
SCALE = tl.constexpr(1)
BELIEF_SCALE = tl.constexpr(2)
LOOK_AHEAD = tl.constexpr(3)
ADAPTIVE = tl.constexpr(4)
COUNT = tl.constexpr(5)
COLUMNS = 6


@triton.jit(do_not_specialize=["table", "scalars", "n", "lr"])
def prepare(
    table,
    scalars,
    n,
    lr,
    RECTIFY: tl.constexpr,
    DEGENERATED_TO_SGD: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Compute the scalars of the next step, as `adabelief_core.step_scalars`, for a block of tensors.

    Args:
        table: The table.
        scalars: Written: 16 + 6n numbers of the compute dtype, see `update`.
        n: Number of tensors.
        lr: Learning rate: the bits of a float64, or a pointer.
        RECTIFY: Variance rectification.
        DEGENERATED_TO_SGD: What it does in its first steps.
        ROWS: Tensors a program.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    address = tl.load(table + HEADER + STEP * n + row, mask=inside, other=0).to(tl.pointer_type(tl.float32))
    step = tl.load(address, mask=inside, other=0.0)
    t = tl.minimum(step.to(tl.int64) + 1, LAST_STEP)
    _, b1 = _power_and_complement(t, table, ROWS)
    power2, b2 = _power_and_complement(t, table + 2 * BITS, ROWS)
    look_ahead = _number(table, BETA1) * (b1 / (_number(table, REST1) + _number(table, BETA1) * b1))
    root_b2 = tl.sqrt(b2)
    scale = 1.0 / b1
    belief_scale = 1.0 / root_b2
    adaptive = t > 0
    if RECTIFY:
        if not DEGENERATED_TO_SGD:
            scale = 0.0 * b1
        limit = _number(table, LIMIT)
        adaptive = t >= tl.load(table + SWITCH)
        rho = limit - 2.0 * t.to(tl.float64) * power2 / b2
        rho = tl.where(rho > 5.0, rho, 5.0)
        r = tl.sqrt((rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho))
        scale = tl.where(adaptive, r * root_b2 / b1, scale)
        belief_scale = b1 * 0.0 + 1.0

    dtype = scalars.dtype.element_ty
    if lr.dtype.is_ptr():
        minus_lr = -1.0 * tl.load(lr).to(tl.float64)
    else:
        minus_lr = -1.0 * lr.to(tl.int64).to(tl.float64, bitcast=True)
    shared = tl.arange(0, SHARED)
    numbers = tl.load(table + NUMBERS + shared).to(tl.float64, bitcast=True)
    tl.store(scalars + shared, numbers.to(dtype), mask=tl.program_id(0) + shared * 0 == 0)
    own = scalars + SHARED + row
    tl.store(own + MINUS_LR * n, (b1 * 0.0 + minus_lr).to(dtype), mask=inside)
    tl.store(own + SCALE * n, scale.to(dtype), mask=inside)
    tl.store(own + BELIEF_SCALE * n, belief_scale.to(dtype), mask=inside)
    tl.store(own + LOOK_AHEAD * n, look_ahead.to(dtype), mask=inside)
    tl.store(own + ADAPTIVE * n, adaptive.to(dtype), mask=inside)
    tl.store(own + COUNT * n, (step + 1.0).to(dtype), mask=inside)


@triton.jit
def _number(table, place: tl.constexpr):
    return tl.load(table + place).to(tl.float64, bitcast=True)


@triton.jit
def _power_and_complement(t, powers, ROWS: tl.constexpr):
    """β^t and 1 - β^t, along the bits of t in the order of the core."""
    place = tl.arange(0, BITS)
    power = tl.load(powers + place).to(tl.float64, bitcast=True)
    complement = tl.load(powers + BITS + place).to(tl.float64, bitcast=True)
    bit = ((t[:, None] >> place[None, :].to(tl.int64)) & 1) == 1
    power = tl.where(bit, power[None, :], 1.0)
    complement = tl.where(bit, complement[None, :], 0.0)
    for level in tl.static_range(5):
        power, power_high = _neighbours(power, ROWS, 16 >> level)
        complement, complement_high = _neighbours(complement, ROWS, 16 >> level)
        complement = complement + power * complement_high
        power = power * power_high
    return tl.reshape(power, (ROWS,)), tl.reshape(complement, (ROWS,))


@triton.jit
def _neighbours(x, ROWS: tl.constexpr, N: tl.constexpr):
    """The even and the odd ones of 2N columns."""
    return tl.split(tl.reshape(x, (ROWS, N, 2)))
