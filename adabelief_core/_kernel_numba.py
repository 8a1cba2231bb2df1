"""The rule in one pass over memory, compiled by numba: the order of `adabelief_core.update`.

A kernel is compiled for each variant and dtype, so that no option costs the others a branch. numba contracts
no products unless asked to (fastmath), and `error_model="numpy"` divides by zero as IEEE has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from inspect import getclosurevars
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from adabelief_core import __version__
from adabelief_core._hyperparameters import Variant
from adabelief_core._rule import Coefficients

_TABLE, _COLUMN = types.int64[:, ::1], types.int64[::1]


def stored(name: str) -> np.dtype:
    """The dtype under which the kernels read and write the one of that name."""
    # numba has neither of the two: its kernels see their bits as integers of two kinds.
    return np.dtype({"bfloat16": "uint16", "float16": "int16"}.get(name, name))


@intrinsic
def _pointer(context, address):  # type: ignore[no-untyped-def]
    def make(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), make


@intrinsic
def _widened(context, x):  # type: ignore[no-untyped-def]
    """A stored number in the compute dtype."""
    if isinstance(x, types.Float):
        return x(x), lambda context, builder, signature, arguments: arguments[0]

    def from_bfloat16(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())

    def from_float16(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(x), from_bfloat16 if x == types.uint16 else from_float16


@intrinsic
def _narrowed(context, x, like):  # type: ignore[no-untyped-def]
    """x as it is stored beside `like`, rounded to nearest even."""
    if isinstance(like, types.Float):
        return x(x, like), lambda context, builder, signature, arguments: arguments[0]

    def to_bfloat16(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        i16, i32 = ir.IntType(16), ir.IntType(32)
        bits = builder.bitcast(arguments[0], i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        rounded = builder.trunc(builder.lshr(builder.add(bits, builder.add(odd, i32(0x7FFF))), i32(16)), i16)
        return builder.select(builder.fcmp_unordered("uno", *arguments[:1] * 2), i16(0x7FC0), rounded)

    def to_float16(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return like(x, like), to_bfloat16 if like == types.uint16 else to_float16


def _compile(function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    """The function compiled for one signature, or out of numba's cache.

    numba numbers the files of what it caches under one name, and takes no lock. Two processes that compile at once may
    give one number to two kernels, and later ones then run the wrong one. So what is compiled has a name of its own,
    by all that it is compiled from, processor and versions included: whoever writes a file writes the same.
    """
    processor = cpu_target.target_context.codegen().magic_tuple()
    source = getclosurevars(function).nonlocals, signature, processor, numba.__version__, __version__
    digest = hashlib.sha256(repr(source).encode()).hexdigest()[:16]
    function.__qualname__ = f"{function.__name__}_{digest}"
    compile_function = partial(numba.njit, signature, nogil=True, error_model="numpy")
    compiled: Callable[..., Any]
    try:
        compiled = compile_function(cache=True)(function)
    except Exception:  # no folder for the cache, a full disk, a file cut short: a kernel compiled here needs none
        compiled = compile_function()(function)
    return compiled


@lru_cache(maxsize=128)
def table_kernel(  # noqa: PLR0915 - one rule
    variant: Variant, layout: tuple[str, str, str], adaptive: bool, scaled: bool
) -> Callable[..., None]:
    """The step over a table of arrays by their addresses.

    Args:
        variant: The lines of the rule that run.
        layout: Names of the dtypes of p, g and the moments.
        adaptive: Whether the direction is divided by the belief.
        scaled: Whether gradients are divided by a scale first.

    Returns:
        A function of the numbers (all `Coefficients` but the last) and the scale, in the moments' dtype, the
        addresses of p, g, m, s, v and k (int64, shape (6, n)) and the arrays' sizes (int64, shape (n,)). All but g
        are overwritten, v under amsgrad and k under kahan.
    """
    maximize, amsgrad, nesterov, kahan = variant.maximize, variant.amsgrad, variant.nesterov, variant.kahan
    clip = variant.clip
    coupled, decoupled, fixed = (variant.decay == kind for kind in ("coupled", "decoupled", "fixed"))

    p_dtype, g_dtype, m_dtype = map(stored, layout)

    def step(c, scale, addresses, sizes):  # type: ignore[no-untyped-def]
        beta1, rest1, beta2, rest2, eps, eps_root, decay, bound, minus_lr, factor, belief_scale, look_ahead, least = c
        zero = least - least
        for row in range(sizes.size):
            size = sizes[row]
            p = numba.carray(_pointer(addresses[0, row]), size, p_dtype)
            g = numba.carray(_pointer(addresses[1, row]), size, g_dtype)
            m = numba.carray(_pointer(addresses[2, row]), size, m_dtype)
            s = numba.carray(_pointer(addresses[3, row]), size, m_dtype)
            v = numba.carray(_pointer(addresses[4, row]), size, m_dtype)
            k = numba.carray(_pointer(addresses[5, row]), size, m_dtype)
            for i in range(size):
                pi = _widened(p[i])
                gi = _widened(g[i])
                if scaled:
                    gi = gi / scale
                if maximize:
                    gi = -gi
                if coupled:
                    gi = gi + decay * pi
                mi = beta1 * m[i] + rest1 * gi
                if abs(mi) < least:
                    mi = zero
                r = gi - mi
                si = (beta2 * s[i] + rest2 * (r * r)) + eps_root
                m[i] = mi
                s[i] = si
                vi = si
                if amsgrad:
                    vi = v[i]
                    # Also when s is NaN, as np.maximum has it.
                    if not vi >= si:
                        vi = si if vi == vi else vi  # noqa: PLR0124
                    v[i] = vi
                u = mi
                if nesterov:
                    u = look_ahead * mi + rest1 * gi
                if adaptive:
                    u = u / (np.sqrt(vi) * belief_scale + eps)
                if clip:
                    # Comparisons, which a NaN passes through.
                    u = bound if u > bound else -bound if u < -bound else u
                u = factor * u
                if decoupled:
                    u = u + decay * pi
                u = minus_lr * u
                if fixed:
                    u = u - decay * pi
                if kahan:
                    u = k[i] + u
                new = _narrowed(pi + u, p[i])
                if kahan:
                    k[i] = u + (pi - _widened(new))
                p[i] = new

    real = numba.from_dtype(m_dtype)
    numbers = types.UniTuple(real, len(Coefficients._fields) - 1)
    return _compile(step, types.void(numbers, real, _TABLE, _COLUMN))


@lru_cache(maxsize=1)
def counting_kernel() -> Callable[..., None]:
    """A function of addresses of float32 numbers (int64), which adds 1 to them, and of an array for the sums."""

    def count(addresses, steps):  # type: ignore[no-untyped-def]
        for i in range(addresses.size):
            number = numba.carray(_pointer(addresses[i]), 1, np.float32)
            number[0] += 1
            steps[i] = number[0]

    return _compile(count, types.void(_COLUMN, types.float32[::1]))
