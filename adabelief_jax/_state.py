"""The state, and the checks that stand before every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adabelief_core import Hyperparameters, compute_dtype


class ScaleByBeliefState(NamedTuple):
    """State of `scale_by_belief`, named as Optax's.

    The moments have the parameters' tree and shapes. They are float32 for float16, bfloat16 and float32
    parameters, float64 for float64, and complex for complex ones.

    Example:
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
    """What rounding the parameters dropped so far, under `kahan_sum` of `adabelief`; of the moments' dtype."""


def zero_state(params: optax.Params, h: Hyperparameters) -> ScaleByBeliefState:
    """The state before the first step.

    Raises:
        TypeError: A parameter is of no dtype that the rule works in; the message names it.
    """
    for path, leaf in jax.tree.leaves_with_path(params):
        if _moment_dtype(jnp.result_type(leaf)) is None:
            raise TypeError(
                f"Invalid params{jax.tree_util.keystr(path)}: {jnp.result_type(leaf)} (expected float16, bfloat16, "
                "float32, float64, complex64 or complex128; `optax.masked` sets other leaves aside)"
            )

    def zeros() -> optax.Updates:
        return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=_moment_dtype(jnp.result_type(p))), params)

    optional = (zeros() if wanted else None for wanted in (h.amsgrad, h.kahan_sum))
    return ScaleByBeliefState(jnp.zeros([], jnp.int32), zeros(), zeros(), *optional)


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
    updates: optax.Updates, state: ScaleByBeliefState, params: optax.Params | None, h: Hyperparameters
) -> Leaves:
    """Flatten, and refuse what does not fit together.

    Args:
        updates: Gradients.
        state: State of the transformation.
        params: Parameters, or None where no line of the rule reads them.
        h: Hyperparameters, which say whether the state needs nu_max and kahan_comp.

    Raises:
        ValueError: A tree, shape or dtype that does not fit; the message names the argument and leaf.
    """
    grads, treedef = jax.tree.flatten(updates, is_leaf=is_none)
    trees = {"mu": state.mu, "nu": state.nu}
    for name, option, wanted in (("nu_max", "amsgrad", h.amsgrad), ("kahan_comp", "kahan_sum", h.kahan_sum)):
        if wanted and getattr(state, name) is None:
            raise ValueError(f"Invalid state: {name} is None (expected what `init` gives under {option}=True)")
        trees[name] = getattr(state, name) if wanted else state.nu  # in whose place nothing is read
    m, s, v, k = (_flatten_as(treedef, tree, f"state.{name}") for name, tree in trees.items())
    p: Sequence[Any] = [None] * len(grads) if params is None else _flatten_as(treedef, params, "params")
    rows = []
    for index, row in enumerate(zip(grads, m, s, v, k, p, strict=True)):

        def path(index: int = index) -> str:
            return jax.tree_util.keystr(jax.tree.leaves_with_path(updates, is_leaf=is_none)[index][0])

        rows.append(_checked(dict(zip(_NAMES, row, strict=True)), path))
    return Leaves(treedef, *([row[i] for row in rows] for i in range(len(_NAMES))))


def is_none(x: object) -> bool:
    """For `is_leaf`: Optax leaves a None where it stands."""
    return x is None


def _flatten_as(treedef: Any, tree: Any, name: str) -> list[Any]:
    try:
        return treedef.flatten_up_to(tree)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Invalid updates: a tree of another structure than {name} ({error})") from None


def _checked(row: dict[str, Any], path: Callable[[], str]) -> tuple[Any, ...]:
    """One leaf of each tree, in the order of `_NAMES`."""
    g, m = row["updates"], row["state.mu"]
    if (g is None) != (m is None):
        raise ValueError(f"Invalid updates{path()}: {_describe(g)} (expected {_describe(m)}, as state.mu)")
    if g is None:
        return (None,) * len(_NAMES)
    arrays = {name: _array(x, name, path) for name, x in row.items() if x is not None}
    mu = arrays["state.mu"]
    for name, x in arrays.items():
        wide = _moment_dtype(x.dtype)
        if name in ("updates", "params"):
            fits = wide is not None and wide.kind == mu.dtype.kind and wide.itemsize <= mu.dtype.itemsize
            expected = "no wider than"
        else:
            fits = x.dtype == mu.dtype == wide
            expected = "as"
        if x.shape != mu.shape or not fits:
            raise ValueError(f"Invalid {name}{path()}: {_describe(x)} (expected {_describe(mu)}, {expected} state.mu)")
    return tuple(arrays.get(name) for name in _NAMES)


def _array(x: Any, name: str, path: Callable[[], str]) -> jax.Array:
    try:
        return jnp.asarray(x)
    except TypeError:
        raise ValueError(f"Invalid {name}{path()}: {x!r} (expected an array)") from None


def _describe(x: Any) -> str:
    return "None" if x is None else f"{jnp.result_type(x)}{list(jnp.shape(x))}"


def _moment_dtype(dtype: Any) -> np.dtype | None:
    """Dtype of the moments of what is of this dtype, or None if the rule does not work in it."""
    try:
        real = compute_dtype(np.dtype(dtype))
    except TypeError:
        return None
    return np.result_type(real, np.complex64) if np.dtype(dtype).kind == "c" else real
