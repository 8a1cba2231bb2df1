"""The state, and the checks that stand before every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.experimental.shard_alike import shard_alike

from adabelief_core import Hyperparameters
from adabelief_jax._dtypes import Dtypes, like, moment_dtype, widest


class ScaleByBeliefState(NamedTuple):
    """State of `scale_by_belief`, named as Optax's.

    The moments have the parameters' tree, shapes and sharding. Unless `mu_dtype` or `nu_dtype` says otherwise, they are
    float32 for float16, bfloat16 and float32 parameters, float64 for float64, and complex for complex ones.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from adabelief_jax import ScaleByBeliefState
        >>> old = optax.scale_by_belief().init(jnp.zeros(2))
        >>> ScaleByBeliefState(*old).nu_max is None  # a state of Optax's, taken over
        True
    """

    count: Any
    """Steps taken, int32; it saturates at 2^31 - 1."""
    mu: optax.Updates
    """First moment."""
    nu: optax.Updates
    """Second moment of the surprise, g - m."""
    nu_max: optax.Updates | None = None
    """Largest nu so far, under amsgrad."""
    kahan_comp: optax.Updates | None = None
    """What rounding the parameters dropped so far, under `kahan_sum` of `adabelief`; of the arithmetic's dtype."""


def zero_state(params: optax.Params, h: Hyperparameters, dtypes: Dtypes) -> ScaleByBeliefState:
    """The state before the first step.

    Raises:
        TypeError: A parameter is of no dtype that the rule works in, or a moment cannot have the dtype asked for;
            the message names it.
    """
    for path, leaf in jax.tree.leaves_with_path(params):
        if moment_dtype(jnp.result_type(leaf)) is None:
            raise TypeError(
                f"Invalid params{jax.tree_util.keystr(path)}: {jnp.result_type(leaf)} (expected float16, bfloat16, "
                "float32, float64, complex64 or complex128; `optax.masked` sets other leaves aside)"
            )

    def zeros(dtype_of: Callable[[np.dtype], np.dtype]) -> optax.Updates:
        return jax.tree.map(lambda p: _sharded_as(p, jnp.zeros_like(p, dtype=dtype_of(jnp.result_type(p)))), params)

    def mu_dtype(leaf: np.dtype) -> np.dtype:
        return dtypes.of_moments(leaf)[0]

    def nu_dtype(leaf: np.dtype) -> np.dtype:
        return dtypes.of_moments(leaf)[1]

    def comp_dtype(leaf: np.dtype) -> np.dtype:
        return like(widest(leaf, *dtypes), leaf)

    return ScaleByBeliefState(
        jnp.zeros([], jnp.int32),
        zeros(mu_dtype),
        zeros(nu_dtype),
        zeros(nu_dtype) if h.amsgrad else None,
        zeros(comp_dtype) if h.kahan_sum else None,
    )


def _sharded_as(p: Any, x: jax.Array) -> jax.Array:
    # Zeros depend on no data, so that XLA, left to choose, would give every device all of them.
    return shard_alike(lax.stop_gradient(p), x)[1] if isinstance(p, jax.core.Tracer) else x


class Leaves(NamedTuple):
    """Trees as lists of leaves in one order. None stands where a gradient is None."""

    treedef: Any
    """Of the updates."""
    g: Sequence[Any]
    m: Sequence[Any]
    s: Sequence[Any]
    v: Sequence[Any]
    k: Sequence[Any]
    p: Sequence[Any]


_NAMES = ("updates", "state.mu", "state.nu", "state.nu_max", "state.kahan_comp", "params")


def checked_leaves(
    updates: optax.Updates,
    state: ScaleByBeliefState,
    params: optax.Params | None,
    h: Hyperparameters,
    dtypes: Dtypes,
) -> Leaves:
    """Flatten, and refuse what does not fit together.

    Args:
        updates: Gradients.
        state: State of the transformation.
        params: Parameters, or None where no line of the rule reads them.
        h: Hyperparameters, which say whether the state needs nu_max and kahan_comp.
        dtypes: Dtypes of the moments.

    Raises:
        ValueError: A tree, shape or dtype that does not fit; the message names the argument and leaf.
    """
    grads, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    trees = {"mu": state.mu, "nu": state.nu, "nu_max": None, "kahan_comp": None}
    for name, option, wanted in (("nu_max", "amsgrad", h.amsgrad), ("kahan_comp", "kahan_sum", h.kahan_sum)):
        if wanted:
            trees[name] = getattr(state, name)
            if trees[name] is None:
                raise ValueError(f"Invalid state: {name} is None (expected what `init` gives under {option}=True)")
    named = [*((f"state.{name}", tree) for name, tree in trees.items()), ("params", params)]
    m, s, v, k, p = (
        [None] * len(grads)
        if tree is None and name not in ("state.mu", "state.nu")
        else _flatten_as(treedef, tree, name)
        for name, tree in named
    )
    rows = []
    for index, row in enumerate(zip(grads, m, s, v, k, p, strict=True)):

        def path(index: int = index) -> str:
            return jax.tree_util.keystr(jax.tree.leaves_with_path(updates, is_leaf=is_none)[index][0])

        rows.append(_checked(dict(zip(_NAMES, row, strict=True)), path, dtypes))
    return Leaves(treedef, *([row[i] for row in rows] for i in range(len(_NAMES))))


def is_none(x: object) -> bool:
    """For `is_leaf`: Optax leaves a None where it stands."""
    return x is None


def _flatten_as(treedef: Any, tree: Any, name: str) -> list[Any]:
    try:
        return treedef.flatten_up_to(tree)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Invalid updates: a tree of another structure than {name} ({error})") from None


def _checked(row: dict[str, Any], path: Callable[[], str], dtypes: Dtypes) -> tuple[Any, ...]:
    """One leaf of each tree, in the order of `_NAMES`."""
    g, m = row["updates"], row["state.mu"]
    if (g is None) != (m is None):
        raise ValueError(f"Invalid updates{path()}: {_describe(g)} (expected {_describe(m)}, as state.mu)")
    if g is None:
        return (None,) * len(_NAMES)
    arrays = {name: _array(x, name, path) for name, x in row.items() if x is not None}
    mu = arrays["state.mu"]
    # The moment in the dtype of the arithmetic, which a gradient must not exceed.
    own = "state.mu" if dtypes.mu is None else "state.nu" if dtypes.nu is None else None

    def check(name: str, fits: bool, dtype: Any, reason: str) -> None:
        x = arrays[name]
        if x.shape != mu.shape or not fits:
            expected = f"{dtype}{list(mu.shape)}, {reason}"
            raise ValueError(f"Invalid {name}{path()}: {_describe(x)} (expected {expected})")

    for name in ("updates", "params"):
        if name in arrays:
            wide, limit = moment_dtype(arrays[name].dtype), arrays[own or "state.mu"].dtype
            narrow = wide is not None and (own is None or wide.itemsize <= limit.itemsize)
            same_kind = jnp.iscomplexobj(arrays[name]) == jnp.iscomplexobj(mu)
            check(name, narrow and same_kind, limit, f"no wider than {own}" if own else "as state.mu")
    leaf = arrays[own or "updates"].dtype
    of_mu, of_nu = dtypes.of_moments(leaf if moment_dtype(leaf) else arrays["updates"].dtype)
    plain = dtypes == (None, None)
    for name, dtype, reason in (
        ("state.mu", of_mu, f"mu_dtype={dtypes.mu}"),
        ("state.nu", of_nu, "as state.mu" if plain else f"nu_dtype={dtypes.nu}"),
        ("state.nu_max", of_nu, "as state.nu"),
    ):
        if name in arrays:
            check(name, arrays[name].dtype == dtype, dtype, reason)
    if "state.kahan_comp" in arrays:
        read = (arrays[name].dtype for name in ("updates", "params", "state.mu", "state.nu"))
        dtype = like(widest(*read), mu.dtype)
        check(
            "state.kahan_comp",
            arrays["state.kahan_comp"].dtype == dtype,
            dtype,
            "as state.mu" if plain else "as the arithmetic",
        )
    return tuple(arrays.get(name) for name in _NAMES)


def _array(x: Any, name: str, path: Callable[[], str]) -> jax.Array:
    try:
        return jnp.asarray(x)
    except TypeError:
        raise ValueError(f"Invalid {name}{path()}: {x!r} (expected an array)") from None


def _describe(x: Any) -> str:
    return "None" if x is None else f"{jnp.result_type(x)}{list(jnp.shape(x))}"
