"""Hyperparameters that Python knows, and those that only a trace does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from adabelief_core import Coefficients, Hyperparameters, StepScalars, assemble, step_scalars
from adabelief_jax._guards import Guards
from adabelief_jax._powers import powers

SPELLING = {"lr": "learning_rate", "betas[0]": "b1", "betas[1]": "b2"}


class Numbers(NamedTuple):
    """Numbers of the rule: Python's, or scalars of JAX, whose values a trace does not know."""

    lr: Any
    betas: tuple[Any, Any]
    eps: Any
    eps_root: Any
    weight_decay: Any
    update_clip: Any


def validated(
    *,
    lr: Any = 0.0,
    b1: Any,
    b2: Any,
    eps: Any,
    eps_root: Any,
    weight_decay: Any = 0.0,
    update_clip: Any = None,
    **flags: Any,
) -> tuple[Hyperparameters, Numbers]:
    """Check what is known, and keep scalars of JAX as they are.

    `optax.inject_hyperparams` hands every number over as such a scalar; under `jit` its value cannot be
    checked, only its shape.

    Returns:
        The hyperparameters, in which a valid number stands for a traced one, and the numbers.

    Raises:
        ValueError, TypeError: As `Hyperparameters`; the message names the argument and the value.
    """
    given = {
        "learning_rate": lr,
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "eps_root": eps_root,
        "weight_decay": weight_decay,
        "update_clip": update_clip,
    }
    known = {name: _known(check_scalar(x, name)) for name, x in given.items()}
    h = Hyperparameters(
        lr=known["learning_rate"],
        betas=(known["b1"], known["b2"]),
        eps=known["eps"],
        eps_root=known["eps_root"],
        weight_decay=known["weight_decay"],
        update_clip=known["update_clip"],
        spelling=SPELLING,
        **flags,
    )
    lr, b1, b2, *others = (x if isinstance(x, jax.Array) else known[name] for name, x in given.items())
    return h, Numbers(lr, (b1, b2), *others)


def check_scalar(x: Any, name: str) -> Any:
    """x, which must be no array with axes."""
    if isinstance(x, jax.Array | np.ndarray) and x.shape != ():
        raise ValueError(f"Invalid {name}: an array of shape {x.shape} (expected a scalar)")
    return x


def step_coefficients(h: Hyperparameters, numbers: Numbers, step: Any, dtype: Any, count: Any) -> Coefficients:
    """The coefficients of a step, worked out in float64 and rounded once to `dtype`.

    Args:
        h, numbers: As `validated` gives them.
        step: Number of the step, int32, counted from 1.
        dtype: Compute dtype.
        count: What `Guards` needs.
    """

    def cast(x: Any) -> Any:
        return x.astype(dtype) if isinstance(x, jax.Array) else np.dtype(dtype).type(x)

    # Float32 would be off by 2e-5 in 1 - 0.999^t, and by far more nearer to 1.
    with jax.enable_x64(True):
        lr, betas, *others = numbers
        known = not any(isinstance(beta, jax.Array) for beta in betas)
        betas = h.betas if known else tuple(jnp.asarray(beta, jnp.float64) for beta in betas)
        wide = Numbers(*map(_float64, (lr, betas, *others)))
        # Only what the scalars depend on: a new learning rate is no reason to compile them again.
        static = Hyperparameters(
            betas=h.betas if known else (0.0, 0.0), rectify=h.rectify, degenerated_to_sgd=h.degenerated_to_sgd
        )
        return assemble(wide, _scalars(static, None if known else betas, step, count), wide.lr, dtype, cast)


@partial(jax.jit, static_argnums=0)
def _scalars(h: Hyperparameters, betas: tuple[Any, Any] | None, step: Any, count: Any) -> StepScalars:
    """`step_scalars`: op by op they would be most of a step."""
    product = Guards.of(count, jnp.float64).product
    walked = None if betas else powers(step, h.betas, product)
    return step_scalars(
        step.astype(jnp.float64),
        h,
        betas=betas,
        powers=walked,
        xp=jnp,
        product=product,
        iterate=_iterate,
        inverses=_inverses,
    )


def _inverses(x: Any, y: Any) -> tuple[Any, Any]:
    """1/x and 1/y, of one array: XLA compiles one kernel for both."""
    both = lax.div(np.ones(2), lax.concatenate([lax.broadcast(x, (1,)), lax.broadcast(y, (1,))], 0))
    return lax.index_in_dim(both, 0, keepdims=False), lax.index_in_dim(both, 1, keepdims=False)


def _iterate(f: Callable[[Any], Any], x: Any, n: int) -> Any:
    """x, f(x), f(f(x)), …, n terms, stacked: written out they take XLA seconds to compile."""
    return jax.lax.scan(lambda x, _: (f(x), x), x, length=n)[1]


def _known(x: Any) -> Any:
    """x as Python's number; where nobody knows it, one that is valid everywhere and leaves the decay on."""
    if isinstance(x, jax.core.Tracer):
        return 0.5
    return x.item() if isinstance(x, jax.Array | np.ndarray | np.generic) else x


def _float64(x: Any) -> Any:
    return x.astype(jnp.float64) if isinstance(x, jax.Array) else x
