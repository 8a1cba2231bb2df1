"""One step of the rule over a tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from adabelief_core import Coefficients, Hyperparameters, Variant, compensated
from adabelief_jax._dtypes import widest
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

    def apply(g: Any, m: Any, s: Any, v: Any, k: Any, p: Any, variant: Variant) -> list[Any]:
        if g is None:
            return [None] * 5
        dtype = widest(*(x.dtype for x in (g, m, s, p) if x is not None))
        if dtype not in known:
            known[dtype] = step_coefficients(h, numbers, count, dtype, state.count)
        return _leaf(rule, variant, dtype, p, g, m, s, v, k, known[dtype], state.count)

    rows = [apply(*row) for row in zip(*leaves[1:], variants, strict=True)]
    updates, mu, nu, nu_max, comp = (leaves.treedef.unflatten([row[i] for row in rows]) for i in range(5))
    return updates, ScaleByBeliefState(
        count, mu, nu, nu_max if h.amsgrad else state.nu_max, comp if h.kahan_sum else state.kahan_comp
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _leaf(
    rule: Rule,
    variant: Variant,
    dtype: np.dtype,
    p: Any,
    g: Any,
    m: Any,
    s: Any,
    v: Any,
    k: Any,
    c: Coefficients,
    count: Any,
) -> list[Any]:
    """Δ, m, s, v and k of a leaf: those of one shape are traced once, and op by op each is one operation."""
    guards = Guards.of(count, dtype)

    def on_reals(p: Any, g: Any, m: Any, s: Any, v: Any, k: Any) -> list[Any]:
        stored, sent = guards.rounded(p.dtype), guards.rounded(g.dtype)
        wide = [x if x is None else x.astype(dtype) for x in (p, g, m, s, v)]
        if variant.kahan:
            # XLA may have dropped this rounding, too, where it compiles several steps together.
            wide[0] = stored(wide[0])
        delta, *new = rule(*wide, c, variant, xp=Namespace, product=guards.product, kept=guards.kept)
        if variant.kahan:
            delta, k = compensated(wide[0], delta, k, stored=stored, sent=sent)
        for i, x in enumerate((m, s, v)):
            new[i] = None if x is None else guards.rounded(x.dtype)(new[i]).astype(x.dtype)
        return [delta.astype(g.dtype), *new, k]

    # Parameters that no line reads are not there.
    leaves = [g if p is None else p, g, m, s, v, k]
    if not jnp.iscomplexobj(m):
        return on_reals(*leaves)
    parts = (on_reals(*(x if x is None else part(x) for x in leaves)) for part in (jnp.real, jnp.imag))
    return [x if x is None else lax.complex(x, y) for x, y in zip(*parts, strict=True)]
