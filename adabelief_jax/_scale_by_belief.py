"""The direction of AdaBelief as a gradient transformation."""

from __future__ import annotations

from typing import Any

import optax

from adabelief_core import Coefficients, Variant, belief
from adabelief_jax._dtypes import Dtypes
from adabelief_jax._hyperparameters import validated
from adabelief_jax._state import ScaleByBeliefState, checked_leaves, zero_state
from adabelief_jax._step import take_step


def scale_by_belief(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-16,
    eps_root: Any = 1e-16,
    *,
    nesterov: bool = False,
    amsgrad: bool = False,
    rectify: bool = False,
    degenerated_to_sgd: bool = True,
    update_clip: Any = None,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> optax.GradientTransformation:
    """Rescale updates by AdaBelief: Adam whose second moment tracks (g - m)², the surprise of the gradient.

    Lines 3 to 8 of `adabelief_core.update`. In a chain, each transformation rounds by itself and XLA may
    contract what follows; `adabelief_jax.adabelief` takes the whole step in the core's bits.

    Args:
        b1: Decay rate β1 of the first moment, in [0, 1). A number, or a scalar of JAX, traced or not; so
            the next three.
        b2: Decay rate β2 of the second moment, in [0, 1).
        eps: Added to the denominator, >= 0.
        eps_root: Added to the second moment at every step, where it accumulates, >= 0. None: the value of
            `eps`. Must not be 0 where gradients flow back through the transformation.
        nesterov: Nesterov momentum.
        amsgrad: Divide by the largest second moment so far, kept in the state's `nu_max`.
        rectify: Variance rectification of RAdam.
        degenerated_to_sgd: What rectification does in its first steps. True: momentum SGD. False: no
            update.
        update_clip: Bound of each element of u in line 7 of the rule, > 0; see `adabelief`. None: no bound.
        mu_dtype: Dtype in which `mu` is kept; see `adabelief`.
        nu_dtype: Dtype in which `nu` and `nu_max` are kept; see `adabelief`.

    Returns:
        A `optax.GradientTransformation` whose state is a `ScaleByBeliefState`. `init` takes parameters of
        float16, bfloat16, float32, float64, complex64 or complex128 and any shape. `update` takes
        gradients of the same tree and shapes, no wider than the moments, and gives updates in their dtype.

    Raises:
        ValueError: A value lies outside its range; the message names the argument and the value. From
            `update`: a gradient does not fit the state.
        TypeError: A value is no number or no dtype. From `init`: a parameter of another dtype.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from adabelief_jax import scale_by_belief
        >>> opt = optax.chain(scale_by_belief(rectify=True), optax.scale_by_learning_rate(0.1))
        >>> w = jnp.array([1.0, 2.0])
        >>> state = opt.init(w)
        >>> for _ in range(200):
        ...     updates, state = opt.update(2 * w, state)      # the gradient of |w|²
        ...     w = optax.apply_updates(w, updates)
        >>> bool(jnp.abs(w).max() < 0.1)
        True

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468 (Algorithm 2).
    """
    h, numbers = validated(
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        nesterov=nesterov,
        amsgrad=amsgrad,
        rectify=rectify,
        degenerated_to_sgd=degenerated_to_sgd,
        update_clip=update_clip,
    )

    dtypes = Dtypes.of(mu_dtype, nu_dtype)

    def init(params: optax.Params) -> ScaleByBeliefState:
        return zero_state(params, h, dtypes)

    def update(
        updates: optax.Updates, state: ScaleByBeliefState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByBeliefState]:
        del params
        leaves = checked_leaves(updates, state, None, h, dtypes)
        return take_step(_direction, h, numbers, [h.variant] * len(leaves.g), leaves, state)

    return optax.GradientTransformation(init, update)


def _direction(
    p: Any, g: Any, m: Any, s: Any, v: Any, c: Coefficients, variant: Variant, **how: Any
) -> tuple[Any, Any, Any, Any]:
    del p
    return belief(g, m, s, v, c, variant, **how)
