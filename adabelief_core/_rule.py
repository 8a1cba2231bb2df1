"""AdaBelief's rule: Algorithm 2 of the paper with its options, once, for every array library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from adabelief_core._hyperparameters import Hyperparameters, Variant
from adabelief_core._scalars import LAST_STEP, StepScalars, plain_product, step_scalars

_SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}


class Coefficients(NamedTuple):
    """The numbers the rule reads at one step, each rounded once to the compute dtype."""

    beta1: Any
    rest1: Any
    """1 - β1"""
    beta2: Any
    rest2: Any
    """1 - β2"""
    eps: Any
    eps_root: Any
    weight_decay: Any
    update_clip: Any
    """Infinite where there is none."""
    minus_lr: Any
    scale: Any
    belief_scale: Any
    look_ahead: Any
    smallest_normal: Any
    """Of the compute dtype: 2^-126 in float32."""
    adaptive: Any


def coefficients(h: Hyperparameters, step: int, dtype: Any, lr: float | None = None) -> Coefficients:
    """The coefficients of a step whose number the host knows.

    Args:
        h: Hyperparameters.
        step: Number of this step, counted from 1.
        dtype: Compute dtype, float32 or float64.
        lr: Learning rate of this step. None: `h.lr`.

    Returns:
        NumPy scalars of `dtype`, and a bool.
    """
    scalars = step_scalars(np.float64(min(step, LAST_STEP)), h)
    return assemble(h, scalars, h.lr if lr is None else lr, dtype, np.dtype(dtype).type)


def assemble(h: Any, scalars: StepScalars, lr: Any, dtype: Any, cast: Callable[[Any], Any]) -> Coefficients:
    """Round the numbers of a step, each once, to the compute dtype.

    Args:
        h: `Hyperparameters`, or a framework's own numbers under the names `betas`, `eps`, `eps_root`,
            `weight_decay` and `update_clip`.
        scalars: Those of the step, float64.
        lr: Learning rate of the step.
        dtype: Compute dtype, float32 or float64.
        cast: Makes a scalar of `dtype` of a number.

    Returns:
        What `cast` makes, and `scalars.adaptive` as it is.
    """
    beta1, beta2 = h.betas
    eps_root = h.eps if h.eps_root is None else h.eps_root
    return Coefficients(
        beta1=cast(beta1),
        rest1=cast(1 - beta1),
        beta2=cast(beta2),
        rest2=cast(1 - beta2),
        eps=cast(h.eps),
        eps_root=cast(eps_root),
        weight_decay=cast(h.weight_decay),
        update_clip=cast(math.inf if h.update_clip is None else h.update_clip),
        minus_lr=cast(-lr),
        scale=cast(scalars.scale),
        belief_scale=cast(scalars.belief_scale),
        look_ahead=cast(scalars.look_ahead),
        smallest_normal=cast(_SMALLEST_NORMAL[dtype if isinstance(dtype, str) else np.dtype(dtype).name]),
        adaptive=scalars.adaptive,
    )


def belief(
    g: Any,
    m: Any,
    s: Any,
    v: Any,
    c: Coefficients,
    variant: Variant,
    *,
    xp: Any = np,
    product: Callable[[Any], Any] = plain_product,
    kept: Callable[[Any], Any] = plain_product,
) -> tuple[Any, Any, Any, Any]:
    """Lines 3 to 8 of `update`: the direction u, and the new m, s and v."""
    m = product(c.beta1 * m) + product(c.rest1 * g)  # 3
    m = xp.where(xp.abs(m) < c.smallest_normal, xp.zeros_like(m), m)
    r = g - m
    s = kept((product(c.beta2 * s) + product(c.rest2 * product(r * r))) + c.eps_root)  # 4
    v = xp.maximum(v, s) if variant.amsgrad else s  # 5
    n = product(c.look_ahead * m) + product(c.rest1 * g) if variant.nesterov else m  # 6
    d = product(xp.sqrt(v) * c.belief_scale) + c.eps
    if variant.rectify:
        d = xp.where(c.adaptive, d, xp.ones_like(d))
    u = n / d  # 7
    if variant.clip:
        u = xp.clip(u, -c.update_clip, c.update_clip)
    return product(c.scale * u), m, s, v  # 8


def update(
    p: Any,
    g: Any,
    m: Any,
    s: Any,
    v: Any,
    c: Coefficients,
    variant: Variant,
    *,
    xp: Any = np,
    product: Callable[[Any], Any] = plain_product,
    kept: Callable[[Any], Any] = plain_product,
) -> tuple[Any, Any, Any, Any]:
    """One step of AdaBelief: Adam whose second moment tracks (g - m)², the surprise of the gradient.

    ::

        1   g ← -g                                    if maximize
        2   g ← g + λ p                               if the decay is coupled
        3   m ← β1 m + (1-β1) g                       Algorithm 2, line 6; subnormal m ← 0
        4   s ← (β2 s + (1-β2) (g-m)²) + ε_root       line 7, with the new m; ε_root stays in s
        5   v ← max(v, s)                             if amsgrad, else s
        6   n ← β1·w m + (1-β1) g                     if nesterov, else m
        7   u ← n / (√v · c + ε)                      while adaptive, else n
            u ← min(max(u, -C), C)                    if update_clip is C
        8   u ← k · u                                 k and c: the bias corrections, line 8
        9   u ← u + λ p                               if the decay is decoupled
        10  Δ ← (-lr) · u                             line 9; and - λ p if the decay is fixed
        11  p ← p + Δ                                 or, with a compensated sum, see `compensated`

    Each operation is rounded once, in this order. Compilers that contract a×b + c to one FMA round once where
    the rule rounds twice; `product` is how such a framework forbids it, by adding a -0.0 that the compiler cannot
    see through. `kept` marks the value that a compiler must not compute twice. A subnormal m, such as is left of a
    gradient that has long been zero, becomes 0 everywhere: XLA and TensorFlow flush it, NumPy and PyTorch do not.
    A NaN is in no bounds: it stays.

    Args:
        p: Parameter, an array of the compute dtype.
        g: Gradient, an array like p.
        m: First moment, an array like p.
        s: Second moment, an array like p.
        v: Largest s so far, an array like p, under `variant.amsgrad`; otherwise not read.
        c: Coefficients of this step.
        variant: The lines that run.
        xp: The arrays' namespace (`numpy`, `jax.numpy`, `keras.ops`, …): `sqrt`, `abs`,
            `maximum`, `where`, `clip`, `ones_like`, `zeros_like`.
        product: Applied to each product that feeds a sum or, next to a scalar, another product: a
            compiler may multiply the scalar first.
        kept: Applied to the new s.

    Returns:
        (Δ, m, s, v), new arrays; v is s without amsgrad. The parameter becomes p + Δ.

    Example:
        >>> from adabelief_core import Hyperparameters, coefficients, update
        >>> h = Hyperparameters(lr=0.1)
        >>> p, g, zero = np.array([1.0]), np.array([0.5]), np.zeros(1)
        >>> delta, m, s, _ = update(p, g, zero, zero, zero, coefficients(h, 1, "float64"), h.variant)
        >>> (p + delta).round(6)                # the first step is lr · g/|g - m| = 0.1 · 0.5/0.45
        array([0.888889])

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468,
        Algorithm 2. The order of lines 8 to 10 is that of Optax's chains.
    """
    if variant.maximize:
        g = -g  # 1
    if variant.decay == "coupled":
        g = g + product(c.weight_decay * p)  # 2
    u, m, s, v = belief(g, m, s, v, c, variant, xp=xp, product=product, kept=kept)  # 3 to 8
    if variant.decay == "decoupled":
        u = u + product(c.weight_decay * p)  # 9
    delta = product(c.minus_lr * u)  # 10
    if variant.decay == "fixed":
        delta = delta - product(c.weight_decay * p)
    return delta, m, s, v


def compensated(
    p: Any,
    delta: Any,
    k: Any,
    *,
    stored: Callable[[Any], Any] = plain_product,
    sent: Callable[[Any], Any] = plain_product,
) -> tuple[Any, Any]:
    """Kahan's sum in place of line 11 of `update`: what rounding the parameter drops is kept in k and added later.

    ::

        k ← k + Δ
        Δ ← k
        k ← k - ((p + Δ) - p)         with p + Δ as it is stored

    A bfloat16 parameter of 1 does not change by 1e-3, however often: with k it follows the float32 trajectory.

    Args:
        p: Parameter, an array of the compute dtype.
        delta: Δ of `update`.
        k: Compensation, an array like p, zero at the start. It keeps the compute dtype: in bfloat16 it would stop in
            its turn, at steps of 2^-9 of the parameter's last place.
        stored: Rounds to the parameter's own dtype, and back.
        sent: Rounds Δ, where it must travel in another dtype before it is added.

    Returns:
        (Δ, k), new arrays. The parameter becomes p + Δ.

    Example:
        >>> from adabelief_core import compensated
        >>> p, k = np.float32(2**24), np.float32(0)
        >>> for _ in range(4):                      # p + 1 rounds to p
        ...     delta, k = compensated(p, np.float32(1), k)
        ...     p = p + delta
        >>> float(p - 2**24)
        4.0

    References:
        Kahan, Further Remarks on Reducing Truncation Errors, Communications of the ACM 8 (1965).
    """
    k = k + delta
    delta = sent(k)
    return delta, k + (p - stored(p + delta))
