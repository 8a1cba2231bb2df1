"""A run out of Optax, and into it: the two verbs of `adabelief_core.portable`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adabelief_core import Hyperparameters
from adabelief_core.portable import Entry, Mapping, Snapshot, count_of, fitted
from adabelief_jax._adabelief import adabelief
from adabelief_jax._state import ScaleByBeliefState

_BELIEFS = (ScaleByBeliefState, optax.ScaleByBeliefState)
_FIELDS = {"m": "mu", "s": "nu", "v": "nu_max", "k": "kahan_comp"}


def snapshot(
    opt_state: optax.OptState, params: optax.Params, *, hyperparameters: Hyperparameters | None = None
) -> Snapshot:
    """Take a run out of Optax: its parameters and state as NumPy arrays, sharded ones gathered one at a time.

    The states of AdaBelief are found where they are: in chains, masks, partitions, `MultiSteps`, `inject_hyperparams`.
    A parameter's name is its path in the tree, joined by "/" as Flax has it: `{"dense": {"kernel": …}}` holds
    "dense/kernel". Parameters that no AdaBelief updates are left out.

    Args:
        opt_state: The optimizer's state, of `adabelief_jax` or of `optax.adabelief`.
        params: The parameters.
        hyperparameters: What the optimizer was made with, which Optax keeps to itself. None: the snapshot does not say.

    Raises:
        ValueError: The state holds no AdaBelief, or two for one parameter; or `MultiSteps` has gathered gradients for a
            step that is yet to come; or moments are kept in a dtype of their own (`mu_dtype`, `nu_dtype`).

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from adabelief_jax import adabelief, restore, snapshot
        >>> params = {"w": jnp.ones(2)}
        >>> optimizer = optax.chain(optax.clip(1.0), adabelief(0.1))
        >>> updates, state = optimizer.update({"w": jnp.array([0.5, 0.0])}, optimizer.init(params), params)
        >>> taken = snapshot(state, optax.apply_updates(params, updates))
        >>> taken.entries["w"].step
        1
        >>> other = {"w": jnp.zeros(2)}
        >>> state, other = restore(optimizer.init(other), other, taken)
        >>> other["w"].round(4).tolist()
        [0.8888999819755554, 1.0]
    """
    entries = {}
    leaves = _named(params)
    for name, belief in _homes(opt_state, leaves).items():
        moments = {key: getattr(belief, field, None) for key, field in _FIELDS.items()}
        arrays = {key: np.asarray(_named(tree)[name]) for key, tree in moments.items() if tree is not None}
        try:
            entries[name] = Entry(int(belief.count), np.asarray(leaves[name]), **arrays, h=hyperparameters)
        except ValueError as error:
            raise ValueError(f"Invalid opt_state: {name!r}: {error}") from None
    return Snapshot(entries)


def restore(
    opt_state: optax.OptState, params: optax.Params, snapshot: Snapshot, mapping: Mapping | None = None
) -> tuple[optax.OptState, optax.Params]:
    """Put a run into Optax, which goes on bit for bit.

    All counts of steps in the state are set, those of schedules too. Arrays keep the sharding of those they replace.

    Args:
        opt_state: A state of the optimizer, such as `init` gives.
        params: The parameters.
        snapshot: What `snapshot` of any adapter took, or `Snapshot.load` read. Optax keeps hyperparameters to itself:
            nobody compares them.
        mapping: From the snapshot's names and layouts to these; see `Snapshot.moved`. None: they are the same.

    Returns:
        The new state and the new parameters.

    Raises:
        ValueError: As `snapshot`; or a parameter has no partner, another shape or dtype, or no state that an option
            needs; or two parameters are at different steps.
    """
    leaves = _named(params)
    homes = _homes(opt_state, leaves)
    entries = fitted(
        snapshot,
        {name: (jnp.shape(leaves[name]), jnp.result_type(leaves[name]).name) for name in homes},
        mapping,
        amsgrad={name: getattr(belief, "nu_max", None) is not None for name, belief in homes.items()},
        kahan_sum={name: getattr(belief, "kahan_comp", None) is not None for name, belief in homes.items()},
    )
    count = count_of(entries)

    def renewed(tree: Any, key: str) -> Any:
        def leaf(path: Any, x: Any) -> Any:
            name = _name(path)
            return _put(getattr(entries[name], key), x, f"{name!r}, {key}") if name in entries else x

        return jax.tree_util.tree_map_with_path(leaf, tree)

    def belief(node: Any) -> Any:
        if not isinstance(node, _BELIEFS):
            return node
        fields = {key: field for key, field in _FIELDS.items() if getattr(node, field, None) is not None}
        return node._replace(**{field: renewed(getattr(node, field), key) for key, field in fields.items()})

    opt_state = jax.tree.map(belief, opt_state, is_leaf=_is_belief)
    return _counted(opt_state, count), renewed(params, "p")


def optimizer_of(h: Hyperparameters) -> optax.GradientTransformationExtraArgs:
    """`adabelief` with these hyperparameters, `maximize` apart: Optax ascends by negating outside."""
    return adabelief(
        h.lr,
        *h.betas,
        h.eps,
        h.eps_root,
        h.weight_decay or None,
        nesterov=h.nesterov,
        amsgrad=h.amsgrad,
        rectify=h.rectify,
        degenerated_to_sgd=h.degenerated_to_sgd,
        weight_decouple=h.weight_decouple,
        fixed_decay=h.fixed_decay,
        kahan_sum=h.kahan_sum,
        update_clip=h.update_clip,
    )


def _homes(opt_state: optax.OptState, leaves: dict[str, Any]) -> dict[str, Any]:
    """Name of a parameter to the state of AdaBelief that holds its moments."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: _is_belief(x) or isinstance(x, optax.MultiStepsState))
    for node in nodes:
        if isinstance(node, optax.MultiStepsState):
            if int(node.mini_step):
                raise ValueError(
                    f"Invalid opt_state: MultiSteps has gathered {int(node.mini_step)} gradients of the next step "
                    "(a run moves between two steps)"
                )
            return _homes(node.inner_opt_state, leaves)
    homes: dict[str, Any] = {}
    for node in filter(_is_belief, nodes):
        for name in _named(node.mu):
            if name not in leaves:
                raise ValueError(f"Invalid params: {name!r} of the state is not among them")
            if name in homes:
                raise ValueError(f"Invalid opt_state: two states of AdaBelief hold {name!r}")
            homes[name] = node
    if not homes:
        raise ValueError("Invalid opt_state: it holds no state of AdaBelief")
    return homes


def _counted(opt_state: optax.OptState, count: int) -> optax.OptState:
    """The state with all its counts of steps set. (optax.tree_utils.tree_set misses those in a dict or a tuple.)"""

    def leaf(path: Any, x: Any) -> Any:
        counts = getattr(path[-1] if path else None, "name", None) in ("count", "gradient_step")
        # A parameter may have the same name, in a module.
        if not counts or jnp.ndim(x) or not jnp.issubdtype(jnp.result_type(x), jnp.integer):
            return x
        return _put(np.asarray(count, x.dtype), x, "count")

    return jax.tree_util.tree_map_with_path(leaf, opt_state)


def _put(x: np.ndarray, like: Any, what: str) -> jax.Array:
    if x.dtype != like.dtype:
        raise ValueError(f"Invalid snapshot: {what}: {x.dtype} (expected {like.dtype}, which the state has)")
    return jax.device_put(x, getattr(like, "sharding", None))


def _is_belief(x: Any) -> bool:
    return isinstance(x, _BELIEFS)


def _named(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
