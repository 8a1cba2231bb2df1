"""The scalars of the rule that depend on the step, in float64: their one home for all frameworks.

β^t and 1 - β^t come out of a table of β^(2^i) and 1 - β^(2^i), i = 0..31, combined along the bits of
t, neighbours first, by

    β^(a+b) = β^a β^b,     1 - β^(a+b) = (1 - β^a) + β^a (1 - β^b).

Nothing cancels, so 1 - β^t is right to a few ulps at every step, and only +, × and a select run
in the framework, so every framework gets the same bits: `pow` promises neither.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

LAST_STEP = 2**31 - 1
"""Where step counts saturate, as `optax.safe_increment` has it."""

_BITS = 32
_PLACE = 2.0 ** -np.arange(_BITS + 1)


class StepScalars(NamedTuple):
    """The step's scalars, float64 (bool for `adaptive`), named as in the rule's docstring."""

    scale: Any
    """k, the factor of the whole direction."""
    belief_scale: Any
    """c, the factor of √v."""
    look_ahead: Any
    """β1·w, Nesterov's factor of m."""
    adaptive: Any
    """Whether the direction is divided by the belief."""


class Tables(NamedTuple):
    """What the host knows of a pair of betas, and the steps' bits are walked with."""

    beta1: tuple[Any, Any]
    """β1^(2^i) and 1 - β1^(2^i), float64, i = 0..31 along the first axis."""
    beta2: tuple[Any, Any]
    switch: int | None
    """The first adaptive step under rectify; None: never."""
    place: Any = _PLACE
    """2^-i, i = 0..32, along the first axis."""


def plain_product(x: Any) -> Any:
    """The product itself: right wherever each operation is rounded on its own (NumPy, eager mode)."""
    return x


@lru_cache(maxsize=256)
def power_table(beta: float) -> tuple[np.ndarray, np.ndarray]:
    """β^(2^i) and 1 - β^(2^i) for i = 0..31, each correctly rounded to float64.

    Args:
        beta: β, in [0, 1).

    Returns:
        Two float64 arrays of shape (32,).
    """
    powers, complements = np.zeros(_BITS), np.ones(_BITS)
    with localcontext() as context:
        context.prec = 60
        power = Decimal(beta)
        for i in range(_BITS):
            powers[i], complements[i] = float(power), float(1 - power)
            # Below float64's smallest number the rest of the table is 0 and 1.
            power = power * power if power > Decimal("1e-400") else Decimal(0)
    powers.flags.writeable = complements.flags.writeable = False
    return powers, complements


@lru_cache(maxsize=256)
def tables(betas: tuple[float, float], threshold: float = 5.0) -> Tables:
    """The tables of (β1, β2), NumPy's, where ρ_t at the threshold turns rectification adaptive."""
    return Tables(power_table(betas[0]), power_table(betas[1]), switch_step(betas[1], threshold))


def traced_power_table(
    beta: Any, xp: Any, product: Callable[[Any], Any], iterate: Callable[..., tuple[Any, Any]] | None = None
) -> tuple[Any, Any]:
    """`power_table` for a β that only the framework knows (a traced hyperparameter), to a few ulps."""

    def square(pair: tuple[Any, Any]) -> tuple[Any, Any]:
        power, complement = pair
        return power * power, complement + product(power * complement)

    pair = (beta, 1.0 - beta)
    if iterate is not None:
        return iterate(square, pair, _BITS)
    pairs = [pair]
    for _ in range(_BITS - 1):
        pairs.append(square(pairs[-1]))
    powers, complements = zip(*pairs, strict=True)
    return xp.stack(powers), xp.stack(complements)


def power_and_complement(
    t: Any, table: tuple[Any, Any], xp: Any, product: Callable[[Any], Any], place: Any = _PLACE
) -> tuple[Any, Any]:
    """β^t and 1 - β^t.

    Args:
        t: Step, a float64 scalar of the framework, 1 <= t <= `LAST_STEP`.
        table: β's powers and complements, shape (32,).
        xp: Namespace with `floor` and `where`.
        product: Guard of products that feed a sum; see `adabelief_core.update`.
        place: `Tables.place`.

    Returns:
        Two float64 scalars.
    """
    places = xp.floor(t * place)
    bit = places[:-1] - 2.0 * places[1:] == 1.0
    power, complement = xp.where(bit, table[0], 1.0), xp.where(bit, table[1], 0.0)
    n = _BITS
    while n > 1:
        n //= 2
        complement = complement[0::2] + product(power[0::2] * complement[1::2])
        power = power[0::2] * power[1::2]
    return power[0], complement[0]


@lru_cache(maxsize=256)
def switch_step(beta2: float, threshold: float = 5.0) -> int | None:
    """The first step t with ρ_t >= 5, where rectification turns adaptive, in exact arithmetic.

    ρ_5 lies a hair below 5 for every β2 near 1 (4.996 at 0.999), so floats cannot decide it.

    Args:
        beta2: β2, in [0, 1).
        threshold: What stands for the 5 of the rule.

    Returns:
        The step, or None where ρ_∞ <= 5 (β2 <= 2/3): never.

    Examples:
        >>> switch_step(0.999), switch_step(0.6)
        (6, None)

    References:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020,
        https://arxiv.org/abs/1908.03265 (Algorithm 2; AdaBelief's authors take 5 where it has 4).
    """
    b = Fraction(beta2)
    limit = 2 / (1 - b) - 1
    if limit <= threshold:
        return None
    t, power = 1, b
    while limit - 2 * t * power / (1 - power) < threshold:
        t, power = t + 1, power * b
    return t


def step_scalars(
    t: Any,
    h: Any,
    *,
    betas: tuple[Any, Any] | None = None,
    known: Tables | None = None,
    powers: tuple[Any, Any] | None = None,
    xp: Any = np,
    product: Callable[[Any], Any] = plain_product,
    iterate: Callable[..., Any] | None = None,
    inverses: Callable[[Any, Any], tuple[Any, Any]] = lambda x, y: (1.0 / x, 1.0 / y),
) -> StepScalars:
    """The scalars of step t.

    With b1 = 1-β1^t, b2 = 1-β2^t, ρ_∞ = 2/(1-β2) - 1, ρ_t = ρ_∞ - 2tβ2^t/b2 and
    r_t = √((ρ_t-4)(ρ_t-2)ρ_∞ / ((ρ_∞-4)(ρ_∞-2)ρ_t)):

    | phase | k | c | adaptive |
    |---|---|---|---|
    | plain | 1/b1 | 1/√b2 | yes |
    | rectify, ρ_t >= 5 | r_t·√b2/b1 | 1 | yes |
    | rectify, ρ_t < 5 | 1/b1 if degenerated_to_sgd, else 0 | - | no |

    Args:
        t: Step, counted from 1: a float64 scalar of the framework. With `known` arrays of shape (32, 1) and a
            place of (33, 1), also many steps at once, shape (n,).
        h: `Hyperparameters`, or a framework's own under the names `betas` (read unless `betas` is given), `rectify` and
            `degenerated_to_sgd`; with `known`, betas may be float64 tensors.
        betas: (β1, β2) as float64 scalars of the framework, where only it knows them.
        known: `tables(h.betas)` as arrays of the framework, where it takes no others, or with another threshold.
            With `betas`, its place alone is read.
        powers: (β^t, 1 - β^t) of β1 and of β2, where the framework has a way of its own to these bits.
        xp: Namespace with `floor`, `where`, `sqrt` (and `maximum` and `stack` with `betas`).
        product: Guard of products that feed a sum; see `adabelief_core.update`.
        iterate: `iterate(f, x, n)`, the n terms x, f(x), f(f(x)), … stacked, for a pair x: a loop of the
            framework, which compiles sooner than the terms written out. Read with `betas` alone. None:
            written out.
        inverses: `inverses(x, y)`, which is 1/x and 1/y, where the framework has a way of its own.

    Returns:
        Float64 scalars of the framework.

    Examples:
        >>> from adabelief_core import Hyperparameters, step_scalars
        >>> k, c, _, adaptive = step_scalars(np.float64(1), Hyperparameters())
        >>> float(round(k, 6)), float(round(c, 6)), adaptive
        (10.0, 31.622777, True)
    """
    beta1, beta2 = h.betas if betas is None else betas
    if known is None:
        known = tables(h.betas)
    if powers is None:
        table1, table2 = known[:2]
        if betas is not None:
            table1, table2 = (traced_power_table(beta, xp, product, iterate) for beta in betas)
        powers = (
            power_and_complement(t, table1, xp, product, known.place),
            power_and_complement(t, table2, xp, product, known.place),
        )
    (_, b1), (power2, b2) = powers
    # 1 - β1^(t+1), without a second walk over the bits.
    b1_next = (1.0 - beta1) + product(beta1 * b1)
    look_ahead = beta1 * (b1 / b1_next)
    # Guarded, or XLA makes 1/√ one operation of its own that is not correctly rounded.
    root_b2 = product(xp.sqrt(b2))
    if not h.rectify:
        return StepScalars(*inverses(b1, root_b2), look_ahead, True)

    warm_up = 1.0 / b1 if h.degenerated_to_sgd else 0.0 * b1
    limit = 2.0 / (1.0 - beta2) - 1.0
    rho = limit - 2.0 * t * power2 / b2
    if betas is None:
        if known.switch is None:
            return StepScalars(warm_up, 1.0, look_ahead, False)
        adaptive = t >= known.switch
    else:
        # ρ_5 < 5 for every β2, however close to 1.
        adaptive = (rho >= 5.0) & (t > 5.0)
        limit = xp.maximum(limit, 5.0)
    # Only an adaptive step uses ρ; the 5 keeps the other branch, and its gradient, finite.
    rho = xp.where(adaptive, rho, 5.0)
    r = xp.sqrt((rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho))
    return StepScalars(xp.where(adaptive, r * root_b2 / b1, warm_up), 1.0, look_ahead, adaptive)
