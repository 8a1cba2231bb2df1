"""The optimizer's state on its way to a file and back: nothing is taken for what it is not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LISTS = {
    "average": "_model_variables_moving_average",
    "gradient_accumulator": "_accumulated_gradients",
    "momentum": "_momentums",
    "belief": "_beliefs",
    "max_belief": "_max_beliefs",
    "kahan_comp": "_kahan_comps",
}
"""What a variable of the state is to the optimizer, and the list it stands in."""

_KINDS = "kinds"
"""The entry beside Keras' own, "0", "1", …, that says what each of them is."""


class State:
    """Mixin of `AdaBelief`: saves and loads its variables."""

    def save_own_variables(self: Any, store: Any) -> None:
        """Fill a store with the state: each variable under its number, as in every Keras optimizer, and what they are.

        Args:
            store: The mapping to fill.
        """
        super().save_own_variables(store)  # type: ignore[misc]
        store[_KINDS] = np.frombuffer(" ".join(self._kinds()).encode(), np.uint8)

    def load_own_variables(self: Any, store: Mapping[str, Any]) -> None:
        """Take over a saved state, or nothing of it.

        Args:
            store: What `save_own_variables` filled. A state of another optimizer, or one saved with other options, is
                left aside with Keras' warning, which says what was saved and what is here.

        Raises:
            ValueError: A saved variable has another shape than this optimizer's. Nothing has changed.
        """
        own = self._kinds()
        saved = bytes(np.asarray(store[_KINDS])).decode().split() if _KINDS in store.keys() else None  # noqa: SIM118
        if saved != own:
            found = f"another optimizer's, {len(store.keys())} variables" if saved is None else _counts(saved)
            warnings.warn(
                f"Skipping variable loading for optimizer {self.name!r}, because it has {_counts(own)}"
                f"{'' if self.built else ' (it has not been built yet)'}, whereas the saved state is {found}.",
                stacklevel=2,
            )
            return
        arrays = [np.asarray(store[str(i)]) for i in range(len(own))]
        for variable, x in zip(self.variables, arrays, strict=True):
            _check_shape(self, variable, x)
        for variable, x in zip(self.variables, arrays, strict=True):
            variable.assign(x)

    def set_weights(self: Any, weights: Sequence[Any]) -> None:
        """Set all variables of the state, in the order of `variables`.

        Args:
            weights: Arrays or variables.

        Raises:
            ValueError: The optimizer is not built, or their number or a shape is not the state's. Nothing has
                changed.
        """
        if self.built:
            if len(weights) != len(self.variables):
                raise ValueError(
                    f"Invalid weights of optimizer {self.name!r}: {len(weights)} arrays for {len(self.variables)} "
                    f"variables ({_counts(self._kinds())})"
                )
            for variable, x in zip(self.variables, weights, strict=True):
                _check_shape(self, variable, x)
        super().set_weights(weights)  # type: ignore[misc]

    def _kinds(self: Any) -> list[str]:
        """What each variable of the state is; the two that belong to no variable of the model by their names."""
        kinds = {id(v): kind for kind, name in _LISTS.items() for v in getattr(self, name, ())}
        return [kinds.get(id(v), v.name) for v in self.variables]


def _counts(kinds: Sequence[str]) -> str:
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def _check_shape(optimizer: Any, variable: Any, x: Any) -> None:
    if tuple(x.shape) != tuple(variable.shape):
        raise ValueError(
            f"Invalid state of optimizer {optimizer.name!r}: {variable.path!r} was saved with shape {tuple(x.shape)} "
            f"(expected {tuple(variable.shape)})"
        )
