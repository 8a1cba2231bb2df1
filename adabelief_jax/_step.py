"""One step of the rule over a tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adabelief_core import Coefficients, Hyperparameters, Variant, compensated
from adabelief_jax._guards import Guards, Namespace
from adabelief_jax._hyperparameters import Numbers, step_coefficients
from adabelief_jax._state import Leaves, ScaleByBeliefState

Rule = Callable[..., tuple[Any, Any, Any, Any]]
"""`adabelief_core.update`, or its direction alone with the same arguments."""


def take_step(
    rule: Rule,
    h: Hyperparameters,
    numbers: Numbers,
    variants: Sequence[Variant],
    leaves: Leaves,
    state: ScaleByBeliefState,
) -> tuple[optax.Updates, ScaleByBeliefState]:
    """Apply the rule to every leaf.

    Args:
        rule: What to apply.
        h, numbers: As `validated` gives them.
        variants: Each leaf's lines of the rule.
        leaves: Checked.
        state: Where `leaves` come from.

    Returns:
        The updates, in the gradients' dtypes, and the new state.
    """
    count = optax.safe_increment(state.count)
    known: dict[Any, Coefficients] = {}

    def apply(g: Any, m: Any, s: Any, v: Any, k: Any, p: Any, variant: Variant) -> tuple[Any, ...]:
        if g is None:
            return (None,) * 5
        dtype = m.real.dtype
        if dtype not in known:
            known[dtype] = step_coefficients(h, numbers, count, dtype, state.count)
        return _leaf(rule, variant, p, g, m, s, v, k, known[dtype], state.count)

    rows = [apply(*row) for row in zip(*leaves[1:], variants, strict=True)]
    updates, mu, nu, nu_max, comp = (leaves.treedef.unflatten([row[i] for row in rows]) for i in range(5))
    return updates, ScaleByBeliefState(
        count, mu, nu, nu_max if h.amsgrad else state.nu_max, comp if h.kahan_sum else state.kahan_comp
    )


@partial(jax.jit, static_argnums=(0, 1))
def _leaf(
    rule: Rule, variant: Variant, p: Any, g: Any, m: Any, s: Any, v: Any, k: Any, c: Coefficients, count: Any
) -> tuple[Any, ...]:
    """One leaf: leaves of one shape are traced once, and op by op each is one operation."""
    guards = Guards.of(count, m.real.dtype)
    stored, sent = (guards.rounded(x.real.dtype) for x in (g if p is None else p, g))

    def on_reals(p: Any, g: Any, m: Any, s: Any, v: Any, k: Any) -> tuple[Any, ...]:
        if variant.kahan:
            # XLA may have dropped this rounding, too, where it compiles several steps together.
            p = stored(p)
        delta, *moments = rule(p, g, m, s, v, c, variant, xp=Namespace, product=guards.product, kept=guards.kept)
        if variant.kahan:
            delta, k = compensated(p, delta, k, stored=stored, sent=sent)
        return delta, *moments, k

    # Parameters that no line reads are not there.
    wide = (m if p is None else p.astype(m.dtype), g.astype(m.dtype), m, s, v, k)
    if jnp.iscomplexobj(m):
        pairs = zip(on_reals(*(x.real for x in wide)), on_reals(*(x.imag for x in wide)), strict=True)
        delta, *moments = (lax.complex(*pair) for pair in pairs)
    else:
        delta, *moments = on_reals(*wide)
    return delta.astype(g.dtype), *moments
