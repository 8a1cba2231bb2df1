"""The Triton kernel of the rule: the order of `adabelief_core.update`, many tensors a launch.

bfloat16 is seen as its bits: every device can round them, and so can Triton's interpreter, whose own conversion
truncates.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from adabelief_torch._triton_prepare import ADAPTIVE, BELIEF_SCALE, COUNT, LOOK_AHEAD, MINUS_LR, SCALE
from adabelief_torch._triton_table import ADDRESSES, FIRST, HEADER, SHARED, SIZE, STEP


@triton.jit(do_not_specialize=["table", "scalars", "n", "depth", "grad_scale", "found_inf"])
def update(
    table,
    scalars,
    n,
    depth,
    grad_scale,
    found_inf,
    P: tl.constexpr,
    G: tl.constexpr,
    DECAY: tl.constexpr,
    RECTIFY: tl.constexpr,
    AMSGRAD: tl.constexpr,
    NESTEROV: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    KAHAN: tl.constexpr,
    CLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Take the step on one block of one tensor, and count it with the tensor's first.

    `prepare` cannot count: nothing would keep one of its threads from reading what another has counted.

    Args:
        table: The table.
        scalars: β1, 1-β1, β2, 1-β2, ε, ε_root, λ, the bound of the direction, the smallest normal number and 7 zeros,
            then n each of -lr, k, c, β1·w, whether the direction is divided by the belief, and the step's number; all
            in the compute dtype.
        n: Number of tensors.
        depth: Halvings that find one of n.
        grad_scale: Pointer to what gradients are divided by, or None.
        found_inf: Pointer to a number that is 0 unless the step shall not be taken, or None.
        P: The parameters' dtype; tl.uint16 for bfloat16.
        G: The gradients', likewise.
        DECAY: As in `adabelief_core.Variant`; so are the other options.
        RECTIFY, AMSGRAD, NESTEROV, MAXIMIZE, KAHAN, CLIP: Options.
        BLOCK: Elements a program.
    """
    if found_inf is not None:  # noqa: SIM102 - known when it is compiled, as what is in it is not
        if tl.load(found_inf) != 0:
            return
    # The last tensor whose first block is not beyond this one.
    block = tl.program_id(0)
    columns = table + HEADER
    row = block * 0
    end = row + n
    for _ in range(depth):
        middle = (row + end) // 2
        found = tl.load(columns + FIRST * n + middle) <= block
        row = tl.where(found, middle, row)
        end = tl.where(found, end, middle)
    columns += row
    own = scalars + SHARED + row
    start = (block - tl.load(columns + FIRST * n)) * BLOCK
    if start == 0:
        count = tl.load(own + COUNT * n).to(tl.float32)
        tl.store(tl.load(columns + STEP * n).to(tl.pointer_type(tl.float32)), count)
    size = tl.load(columns + SIZE * n) - start
    p = tl.load(columns + ADDRESSES * n)
    g = tl.load(columns + (ADDRESSES + 1) * n)
    m = tl.load(columns + (ADDRESSES + 2) * n)
    s = tl.load(columns + (ADDRESSES + 3) * n)
    v = m
    k = m
    if AMSGRAD:
        v = tl.load(columns + (ADDRESSES + 4) * n)
    if KAHAN:
        k = tl.load(columns + (ADDRESSES + 4 + AMSGRAD) * n)

    # Two copies of the step: a whole block that is known to be aligned moves 16 bytes an instruction.
    if (size >= BLOCK) & ((p | g | m | s | v | k) % 16 == 0):
        _step(
            p, g, m, s, v, k, start, None,
            scalars, own, n, grad_scale, P, G, DECAY, RECTIFY, AMSGRAD, NESTEROV, MAXIMIZE, KAHAN, CLIP, BLOCK,
        )  # fmt: skip
    else:
        inside = tl.arange(0, BLOCK) < size
        _step(
            p, g, m, s, v, k, start, inside,
            scalars, own, n, grad_scale, P, G, DECAY, RECTIFY, AMSGRAD, NESTEROV, MAXIMIZE, KAHAN, CLIP, BLOCK,
        )  # fmt: skip


@triton.jit
def _step(  # noqa: PLR0915 - one line an operation of the rule
    p, g, m, s, v, k, start, inside,
    scalars, own, n, grad_scale,
    P: tl.constexpr, G: tl.constexpr, DECAY: tl.constexpr, RECTIFY: tl.constexpr, AMSGRAD: tl.constexpr,
    NESTEROV: tl.constexpr, MAXIMIZE: tl.constexpr, KAHAN: tl.constexpr, CLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = scalars.dtype.element_ty
    # All is read before anything is written: the compiler may not move a load over a store.
    beta1 = tl.load(scalars)
    rest1 = tl.load(scalars + 1)
    beta2 = tl.load(scalars + 2)
    rest2 = tl.load(scalars + 3)
    eps = tl.load(scalars + 4)
    eps_root = tl.load(scalars + 5)
    weight_decay = tl.load(scalars + 6)
    if CLIP:
        bound = tl.load(scalars + 7)
    smallest_normal = tl.load(scalars + 8)
    minus_lr = tl.load(own + MINUS_LR * n)
    scale = tl.load(own + SCALE * n)
    belief_scale = tl.load(own + BELIEF_SCALE * n)
    look_ahead = tl.load(own + LOOK_AHEAD * n)
    adaptive = tl.load(own + ADAPTIVE * n) != 0
    p = _place(p, start, P, inside, BLOCK)
    m = _place(m, start, C, inside, BLOCK)
    s = _place(s, start, C, inside, BLOCK)
    wide = _widened(tl.load(p, mask=inside), C)
    gradient = _widened(tl.load(_place(g, start, G, inside, BLOCK), mask=inside), C)
    first = tl.load(m, mask=inside)
    second = tl.load(s, mask=inside)
    if AMSGRAD:
        v = _place(v, start, C, inside, BLOCK)
        largest = tl.load(v, mask=inside)
    if KAHAN:
        k = _place(k, start, C, inside, BLOCK)
        compensation = tl.load(k, mask=inside)

    if grad_scale is not None:
        gradient = _quotient(gradient, tl.load(grad_scale).to(C))
    if MAXIMIZE:
        gradient = gradient * -1.0
    if DECAY == "coupled":
        gradient = gradient + weight_decay * wide

    first = beta1 * first + rest1 * gradient
    first = tl.where(tl.abs(first) < smallest_normal, 0.0, first)
    r = gradient - first
    second = (beta2 * second + rest2 * (r * r)) + eps_root
    tl.store(m, first, mask=inside)
    tl.store(s, second, mask=inside)
    if AMSGRAD:
        # Also when one of them is NaN, as np.maximum has it.
        second = tl.where((largest >= second) | (largest != largest), largest, second)  # noqa: PLR0124
        tl.store(v, second, mask=inside)

    u = first
    if NESTEROV:
        u = look_ahead * first + rest1 * gradient
    d = _root(second) * belief_scale + eps
    if RECTIFY:
        d = tl.where(adaptive, d, 1.0)
    u = _quotient(u, d)
    if CLIP:
        # Comparisons, which a NaN passes through.
        u = tl.where(u > bound, bound, tl.where(u < -bound, -bound, u))
    u = scale * u
    if DECAY == "decoupled":
        u = u + weight_decay * wide
    u = minus_lr * u
    if DECAY == "fixed":
        u = u - weight_decay * wide
    if KAHAN:
        u = compensation + u
    new = _narrowed(wide + u, P)
    if KAHAN:
        tl.store(k, u + (wide - _widened(new, C)), mask=inside)
    tl.store(p, new, mask=inside)


@triton.jit
def _place(address, start, DTYPE: tl.constexpr, inside, BLOCK: tl.constexpr):
    """Pointers to a block that begins `start` elements on from an address, which is aligned where all are inside."""
    if inside is None:
        # The mask changes nothing, but makes a value of its own: the hint must not reach the other copy of the step.
        pointer = tl.multiple_of((address & -16).to(tl.pointer_type(DTYPE)), 16)
    else:
        pointer = address.to(tl.pointer_type(DTYPE))
    return pointer + start + tl.arange(0, BLOCK)


@triton.jit
def _widened(x, C: tl.constexpr):
    return (x.to(tl.uint32) << 16).to(tl.float32, bitcast=True) if x.dtype == tl.uint16 else x.to(C)


@triton.jit
def _narrowed(x, P: tl.constexpr):
    """x as it is stored, rounded to nearest even."""
    if tl.uint16 == P:
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
        stored = tl.where(x == x, bits, 0x7FC0).to(tl.uint16)  # noqa: PLR0124
    else:
        stored = x.to(P)
    return stored


@triton.jit
def _quotient(a, b):
    return a / b if a.dtype == tl.float64 else tl.div_rn(a, b)


@triton.jit
def _root(x):
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)
