"""What the optimizer does in PyTorch's own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from keras import ops
from keras.src.backend import in_stateless_scope  # Keras has no public name for it
from torch._compile import _disable_dynamo  # torch.compiler's would import the compiler at once

from adabelief_core import Coefficients, Hyperparameters, Job, update_inplace
from adabelief_tf._tensors import Step, TensorSteps


def _array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's own memory."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _on_cpu(variables: Sequence[Any]) -> bool:
    return all(variable.value.device.type == "cpu" for variable in variables)


def _in_numbers(step: Step) -> Step:
    """Python numbers for coefficients: on any device they enter in the tensor's dtype, in which they are exact."""
    *numbers, adaptive = step.coefficients
    return step._replace(coefficients=Coefficients._make([*map(float, numbers), adaptive]))


class Backend(TensorSteps):
    """On a CPU the core's kernel works on the tensors' own memory; elsewhere tensors are updated."""

    @staticmethod
    def _dense(gradient: Any, variable: Any) -> Any:
        """The gradient as a dense tensor, out of reach of autograd."""
        gradient = ops.convert_to_tensor(gradient).detach()
        return gradient.to_dense() if gradient.layout != torch.strided else gradient

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
        if _on_cpu(trainable_variables):
            self._update_memory(grads, trainable_variables, plan)
            return
        plan = {dtype: _in_numbers(step) for dtype, step in plan.items()}
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            super().update_step(gradient, variable, plan)

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state; see `TensorSteps.update_step`."""
        self._backend_update_step([gradient], [variable], learning_rate)

    def _update_memory(self: Any, grads: Sequence[Any], variables: Sequence[Any], plan: dict[str, Step]) -> None:
        stateless = in_stateless_scope()
        jobs, written = [], []
        for gradient, variable in zip(grads, variables, strict=True):
            index = self._get_variable_index(variable)
            targets = [variable, self._momentums[index], self._beliefs[index]]
            step = plan[targets[1].dtype]
            if self.amsgrad:
                targets.append(self._max_beliefs[index])
            if step.variant.kahan:
                targets.append(self._kahan_comps[index])
            # A stateless scope lends its values: what it wants is new ones.
            tensors = [x.value.detach().clone() if stateless else x.value.detach() for x in targets]
            p, m, s, *rest = map(_array, tensors)
            g = _array(gradient.detach())
            v = rest.pop(0) if self.amsgrad else None
            k = rest.pop() if rest else None
            jobs.append(Job(p, g, m, s, v, k, step.coefficients, self._variant(step.variant, index)))
            written.append((targets, tensors))
        update_inplace(jobs)
        for targets, tensors in written:
            if stateless:
                for target, tensor in zip(targets, tensors, strict=True):
                    target.assign(tensor)
            else:
                # What autograd saved of the old values must not be used any more.
                torch.autograd.graph.increment_version(tensors)
