"""What the optimizer does in PyTorch's own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from keras import ops
from keras.src.backend import in_stateless_scope  # Keras has no public name for it
from torch._compile import _disable_dynamo  # torch.compiler's would import the compiler at once

from adabelief_core import Coefficients, Hyperparameters
from adabelief_tf._memory_torch import Place, update_places
from adabelief_tf._tensors import Step, TensorSteps


def _on_cpu(variables: Sequence[Any]) -> bool:
    """Whether the variables lie there. Their `value` is slow, and says more than where they lie."""
    return all([variable._value.is_cpu for variable in variables])  # noqa: C419 - twice as fast


def _in_numbers(step: Step) -> Step:
    """Python numbers for coefficients: on any device they enter in the tensor's dtype, in which they are exact."""
    *numbers, adaptive = step.coefficients
    return step._replace(coefficients=Coefficients._make([*map(float, numbers), adaptive]))


class _Namespace:
    """What the rule calls."""

    abs, sqrt, maximum, where, ones_like, zeros_like = (
        staticmethod(f) for f in (ops.abs, ops.sqrt, ops.maximum, ops.where, ops.ones_like, ops.zeros_like)
    )
    clip = staticmethod(torch.clamp)  # Keras' own makes a float32 tensor of a number first


class Backend(TensorSteps):
    """On a CPU the core's kernel works on the tensors' own memory; elsewhere tensors are updated."""

    _namespace = _Namespace

    @staticmethod
    def _dense(gradient: Any, variable: Any) -> Any:
        """The gradient as a dense tensor, out of reach of autograd."""
        if type(gradient) is not torch.Tensor:
            gradient = ops.convert_to_tensor(gradient)
        if gradient.requires_grad:
            gradient = gradient.detach()
        return gradient if gradient.layout is torch.strided else gradient.to_dense()

    @staticmethod
    def _is_complex(gradient: Any) -> bool:
        return gradient.is_complex()

    @staticmethod
    def _rounded(x: Any, dtype: str) -> Any:
        return np.dtype(dtype).type(x)

    def _step(self, h: Hyperparameters, iterations: Any, learning_rate: Any, dtype: str) -> Step:
        return self._host_step(h, iterations, learning_rate, dtype)

    # torch.compile would trace NumPy's operations as its own, which round otherwise.
    @_disable_dynamo
    @torch.no_grad()
    def _backend_update_step(self: Any, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        plan = self._plan(learning_rate)
        if not _on_cpu(trainable_variables):
            plan = {dtype: _in_numbers(step) for dtype, step in plan.items()}
            for gradient, variable in zip(grads, trainable_variables, strict=True):
                super().update_step(gradient, variable, plan)
            return
        stateless = in_stateless_scope()
        places, variants = [], []
        for variable in trainable_variables:
            index = self._get_variable_index(variable)
            place = self._lent(variable, index) if stateless else self._place(variable, index)
            places.append(place)
            variants.append(self._variant(plan[place.layout[1]].variant, index))
        update_places(places, grads, variants, plan)
        if stateless:
            for variable, place in zip(trainable_variables, places, strict=True):
                index = self._get_variable_index(variable)
                for target, tensor in zip([variable, *self._state_of(index)], place.tensors, strict=True):
                    target.assign(tensor)

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state; see `TensorSteps.update_step`."""
        gradient = self._dense(gradient, variable)
        self._check_shape(gradient, variable)  # the kernel would read on behind a smaller one
        self._backend_update_step([gradient], [variable], learning_rate)

    def _state_of(self: Any, index: int) -> list[Any]:
        """The state variables of a variable: m and s, and v and k if it was built with them."""
        lists = (
            self._momentums,
            self._beliefs,
            getattr(self, "_max_beliefs", None),
            getattr(self, "_kahan_comps", None),
        )
        return [x[index] for x in lists if x is not None]

    def _place(self: Any, variable: Any, index: int) -> Place:
        """Where a variable lies, as it is remembered while nothing moves."""
        places = self.__dict__.setdefault("_places", {})  # out of the sight of Keras, which tracks attributes
        variables, place = places.get(index, (None, None))
        if place is None or not place.holds(variables):
            variables = [variable, *self._state_of(index)]
            place = Place([x._value for x in variables], hasattr(self, "_max_beliefs"))
            places[index] = variables, place
        return place

    def _lent(self: Any, variable: Any, index: int) -> Place:
        """New values for a stateless scope, which lends its own."""
        values = [x.value.detach().clone() for x in (variable, *self._state_of(index))]
        return Place(values, hasattr(self, "_max_beliefs"))
