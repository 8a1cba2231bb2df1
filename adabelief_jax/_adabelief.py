"""The AdaBelief optimizer for Optax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adabelief_core import Variant, update
from adabelief_jax._dtypes import Dtypes
from adabelief_jax._hyperparameters import check_scalar, validated
from adabelief_jax._state import Leaves, checked_leaves, is_none, zero_state
from adabelief_jax._step import take_step


def adabelief(
    learning_rate: Any,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-16,
    eps_root: Any = 1e-16,
    weight_decay: Any = None,
    weight_decay_mask: Any = None,
    *,
    nesterov: bool = False,
    amsgrad: bool = False,
    rectify: bool = False,
    degenerated_to_sgd: bool = True,
    weight_decouple: bool = True,
    fixed_decay: bool = False,
    kahan_sum: bool | None = None,
    update_clip: Any = None,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """AdaBelief: step far where the gradient is as predicted, and little where it is not.

    Adam with (g - m)² in place of g². The formula is in `adabelief_core.update`; under `jit` on a CPU the
    steps are the core's, bit for bit, as long as the step count is data: the state comes in as an argument
    or is carried by a loop. Takes the place of `optax.adabelief`, whose signature and state it keeps.

    Args:
        learning_rate: A number >= 0, a scalar of JAX, or a schedule: a function from the number of steps
            taken, int32, to the learning rate. What a schedule returns is not checked.
        b1: Decay rate β1 of the first moment, in [0, 1). A number, or a scalar of JAX, traced or not; so
            the next three and, without a schedule, `weight_decay`.
        b2: Decay rate β2 of the second moment, in [0, 1).
        eps: Added to the denominator, >= 0.
        eps_root: Added to the second moment at every step, where it accumulates, >= 0. None: the value of
            `eps`. Must not be 0 where gradients flow back through the optimizer.
        weight_decay: Decay rate λ >= 0, or a schedule, as of `learning_rate`. None: no decay.
        weight_decay_mask: Which parameters decay: a tree of bools, the parameters' or a prefix of it, or a
            function from the updates to one. None: all.
        nesterov: Nesterov momentum.
        amsgrad: Divide by the largest second moment so far, kept in the state's `nu_max`.
        rectify: Variance rectification of RAdam.
        degenerated_to_sgd: What rectification does in its first steps. True: momentum SGD. False: no
            update.
        weight_decouple: True: decay the parameters (AdamW). False: add λp to the gradient (L2).
        fixed_decay: True: decoupled decay by λ in place of lr·λ. Needs `weight_decouple`.
        kahan_sum: True: compensated sum of the parameters (`adabelief_core.compensated`), for pure bfloat16 training.
            The state's `kahan_comp` keeps what rounding them drops, provided that they become exactly what
            `optax.apply_updates` makes of them: the updates must not be changed on the way. None: off.
        update_clip: Bound of each element of u in line 7 of the rule, > 0: a number, or a scalar of JAX. No step is
            longer than lr·k·update_clip, and k falls to 1. Where gradients are constant, or clipped by element
            (`optax.clip`), or `b1` is 0, g - m goes to 0, and without a bound the step grows and grows. None: no bound.
        mu_dtype: Dtype in which `mu` is kept: float16, bfloat16, float32 or float64, or its name. The arithmetic
            is not narrowed: `mu` is rounded once, when it is stored. One wider than the parameters' widens the
            arithmetic. None: float32, or float64 for float64 parameters.
        nu_dtype: Dtype in which `nu` and `nu_max` are kept, likewise. bfloat16 drops a step's growth below 2^-9 of
            `nu`, and float16 what is below 2^-25: both suit a `b2` well below 0.999.

    Returns:
        A `optax.GradientTransformationExtraArgs` whose state is a pair: a `ScaleByBeliefState`, and
        `optax.EmptyState()` or, for a schedule, `optax.ScaleByScheduleState`. `init` takes parameters of
        float16, bfloat16, float32, float64, complex64 or complex128 and any shape. `update` takes
        gradients of the same tree and shapes, no wider than the moments, and gives updates in their dtype;
        with a weight decay or `kahan_sum` it needs the parameters.

    Raises:
        ValueError: A value lies outside its range, or two options exclude each other; the message names
            the argument and the value. From `update`: a gradient does not fit the state, or a weight decay
            or `kahan_sum` misses the parameters.
        TypeError: A value is no number or no dtype. From `init`: a parameter of another dtype.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from adabelief_jax import adabelief
        >>> opt = adabelief(0.1, weight_decay=1e-4, rectify=True)
        >>> w = jnp.array([1.0, 2.0])
        >>> state = opt.init(w)
        >>> @jax.jit
        ... def step(w, state):
        ...     updates, state = opt.update(2 * w, state, w)      # the gradient of |w|²
        ...     return optax.apply_updates(w, updates), state
        >>> for _ in range(200):
        ...     w, state = step(w, state)
        >>> bool(jnp.abs(w).max() < 0.1)
        True

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468 (Algorithm 2).
    """
    if weight_decay is None and weight_decay_mask is not None:
        raise ValueError(f"Invalid weight_decay_mask: {weight_decay_mask!r} (there is no weight_decay for it)")
    schedule = learning_rate if callable(learning_rate) else None
    decay_schedule = weight_decay if callable(weight_decay) else None
    h, numbers = validated(
        lr=0.0 if schedule else learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        # Any rate but 0 switches the lines on that a schedule needs.
        weight_decay=1.0 if decay_schedule else 0.0 if weight_decay is None else weight_decay,
        nesterov=nesterov,
        amsgrad=amsgrad,
        rectify=rectify,
        degenerated_to_sgd=degenerated_to_sgd,
        weight_decouple=weight_decouple,
        fixed_decay=fixed_decay,
        kahan_sum=kahan_sum,
        update_clip=update_clip,
    )
    dtypes = Dtypes.of(mu_dtype, nu_dtype)
    decays = h.variant.decay != "none"

    def init(params: optax.Params) -> optax.OptState:
        rate = optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)) if schedule else optax.EmptyState()
        return zero_state(params, h, dtypes), rate

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        belief, rate = state
        for name, reads in (("weight_decay", decays), ("kahan_sum", kahan_sum)):
            if reads and params is None:
                raise ValueError(f"{name} needs the parameters, but `update` was called without `params`")
        leaves = checked_leaves(updates, belief, params if decays or kahan_sum else None, h, dtypes)
        variants = _variants(h.variant, weight_decay_mask if decays else None, updates, leaves)
        now = numbers
        if schedule:
            now = numbers._replace(lr=check_scalar(schedule(rate.count), "learning_rate(count)"))
            rate = optax.ScaleByScheduleState(optax.safe_increment(rate.count))
        if decay_schedule:
            now = now._replace(weight_decay=check_scalar(decay_schedule(belief.count), "weight_decay(count)"))
        updates, belief = take_step(update, h, now, variants, leaves, belief)
        return updates, (belief, rate)

    return optax.with_extra_args_support(optax.GradientTransformation(init, update_fn))


def _variants(variant: Variant, mask: Any, updates: optax.Updates, leaves: Leaves) -> list[Variant]:
    """Each leaf's variant: without decay where the mask is False."""
    if mask is None:
        return [variant] * len(leaves.g)
    # A module of some libraries is a tree and can be called, too: then it is a tree of bools.
    if callable(mask) and jax.tree_util.all_leaves([mask]):
        mask = mask(updates)

    def spread(decays: Any, subtree: Any) -> Any:
        if not isinstance(decays, bool | np.bool_):
            raise TypeError(f"Invalid weight_decay_mask: {decays!r} (expected a bool)")
        return jax.tree.map(lambda _: decays, subtree, is_leaf=is_none)

    try:
        tree = jax.tree.map(spread, mask, updates)
    except ValueError as error:
        raise ValueError(f"Invalid weight_decay_mask: {mask!r} (no prefix of the updates: {error})") from None
    return [variant if decays else variant._replace(decay="none") for decays in leaves.treedef.flatten_up_to(tree)]
