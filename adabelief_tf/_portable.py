"""A run out of Keras, and into it: the two verbs of `adabelief_core.portable`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from adabelief_core import Hyperparameters
from adabelief_core.portable import Entry, Snapshot, count_of, fitted, refuse_other_hyperparameters
from adabelief_core.portable import Mapping as Moves
from adabelief_core.portable._progress import watched
from adabelief_tf._optimizer import AdaBelief

_LISTS = {"m": "_momentums", "s": "_beliefs", "v": "_max_beliefs", "k": "_kahan_comps"}


def snapshot(optimizer: Any, model: Any) -> Snapshot:
    """Take a run out of Keras: its parameters and state as NumPy arrays, and its hyperparameters.

    A parameter's name is its variable's `path`, without the model's own name: "stem/kernel" of a layer named "stem".

    Args:
        optimizer: `AdaBelief`, in a `keras.optimizers.LossScaleOptimizer` or not.
        model: The model that it trains; or its trainable variables, as a mapping from names of your own.

    Raises:
        TypeError: The optimizer is another.
        ValueError: Two variables have one name; or the optimizer has gathered gradients for a step that is yet to come,
            or averages variables (`use_ema`), which no other framework could go on with.

    Examples:
        >>> from adabelief_tf import AdaBelief, restore, snapshot
        >>> w, other = keras.Variable(np.ones(2, "float32")), keras.Variable(np.zeros(2, "float32"))
        >>> optimizer = AdaBelief(0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor(np.float32([0.5, 0.0]))], [w])
        >>> taken = snapshot(optimizer, {"w": w})
        >>> taken.entries["w"].step
        1
        >>> restore(AdaBelief(0.1), {"w": other}, taken)
        >>> keras.ops.convert_to_numpy(other).round(4).tolist()
        [0.8888999819755554, 1.0]
    """
    optimizer, variables = _unwrapped(optimizer), _named(model)
    optimizer.build(list(variables.values()))
    step = _steps(optimizer)
    rate, decay = _last(optimizer._learning_rate, step), _last(optimizer.weight_decay or 0.0, step)
    entries = {}
    for name, state in watched(_states(optimizer, variables).items(), "taking"):
        arrays = {key: _array(x) for key, x in state.items()}
        entries[name] = Entry(step, _array(variables[name]), **arrays, h=_rule(optimizer, variables[name], rate, decay))
    return Snapshot(entries)


def restore(
    optimizer: Any,
    model: Any,
    snapshot: Snapshot,
    mapping: Moves | None = None,
    *,
    check_hyperparameters: bool = True,
) -> None:
    """Put a run into Keras, which goes on bit for bit: the model's variables are assigned to.

    Args:
        optimizer: `AdaBelief`, in a `keras.optimizers.LossScaleOptimizer` or not; one that has not been built is built
            for the model. It keeps its own hyperparameters.
        model: As for `snapshot`.
        snapshot: What `snapshot` of any adapter took, or `Snapshot.load` read.
        mapping: From the snapshot's names and layouts to the model's; see `Snapshot.moved`. None: they are the same.
        check_hyperparameters: Refuse hyperparameters other than the snapshot's, the learning rate apart.

    Raises:
        TypeError: The optimizer is another.
        ValueError: As `snapshot`; or a parameter has no partner, another shape or dtype, or no state that an option
            needs; or two are at different steps; or a hyperparameter differs. Nothing has changed.
    """
    optimizer, variables = _unwrapped(optimizer), _named(model)
    optimizer.build(list(variables.values()))
    states = _states(optimizer, variables)
    entries = fitted(
        snapshot,
        {
            name: (tuple(variables[name].shape), keras.backend.standardize_dtype(variables[name].dtype))
            for name in states
        },
        mapping,
        amsgrad=optimizer.amsgrad,
        kahan_sum=bool(optimizer.kahan_sum),
    )
    step = count_of(entries)
    _steps(optimizer)
    if check_hyperparameters:
        decay = _last(optimizer.weight_decay or 0.0, step)
        for name, entry in entries.items():
            refuse_other_hyperparameters(name, entry, _rule(optimizer, variables[name], 0.0, decay))
    for name, state in watched(states.items(), "restoring"):
        _assign(variables[name], entries[name].p)
        for key, x in state.items():
            _assign(x, getattr(entries[name], key))
    optimizer._iterations.assign(step * (optimizer.gradient_accumulation_steps or 1))


def _unwrapped(optimizer: Any) -> AdaBelief:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not isinstance(optimizer, AdaBelief):
        raise TypeError(f"Invalid optimizer: {optimizer!r} (expected an adabelief_tf.AdaBelief)")
    if optimizer.use_ema:
        raise ValueError("Invalid optimizer: use_ema=True (a snapshot has no averages of the variables)")
    return optimizer


def _named(model: Any) -> dict[str, Any]:
    if isinstance(model, Mapping):
        return dict(model)
    variables: dict[str, Any] = {}
    for variable in model.trainable_variables:
        name = variable.path.removeprefix(f"{model.name}/")
        if name in variables:
            raise ValueError(f"Invalid model: two of its variables are named {name!r}")
        variables[name] = variable
    return variables


def _steps(optimizer: AdaBelief) -> int:
    """Steps of the rule that were taken."""
    steps, gathered = divmod(
        int(keras.ops.convert_to_numpy(optimizer._iterations.value)), optimizer.gradient_accumulation_steps or 1
    )
    if gathered:
        raise ValueError(
            f"Invalid optimizer: it has gathered {gathered} gradients of the next step (a run moves between two steps)"
        )
    return steps


def _states(optimizer: AdaBelief, variables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name to state; without the variables that Keras overwrites with their gradients, which have none."""
    switches = {"m": True, "s": True, "v": optimizer.amsgrad, "k": optimizer.kahan_sum}
    lists = {key: getattr(optimizer, _LISTS[key]) for key, on in switches.items() if on}
    states = {}
    for name, variable in variables.items():
        index = optimizer._get_variable_index(variable)
        if lists["m"][index] is not None:
            states[name] = {key: values[index] for key, values in lists.items()}
    return states


def _last(value: Any, step: int) -> float:
    """A number, or what a schedule or a function gave in the last step."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        value = value(max(step - 1, 0))
    return float(keras.ops.convert_to_numpy(value() if callable(value) else value))


def _rule(optimizer: AdaBelief, variable: Any, rate: float, decay: float) -> Hyperparameters:
    decays = optimizer._use_weight_decay(variable)
    return replace(optimizer._hyperparameters(rate), weight_decay=decay if decays else 0.0)


def _array(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable.value))


def _assign(variable: Any, x: np.ndarray) -> None:
    variable.assign(np.array(x, order="C"))
