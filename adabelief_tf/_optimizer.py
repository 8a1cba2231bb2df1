"""AdaBelief as a Keras optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import keras
import numpy as np

from adabelief_core import Hyperparameters
from adabelief_tf._state import State
from adabelief_tf._tensors import Schedule

if keras.backend.backend() not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        f"adabelief_tf needs Keras on its tensorflow, jax or torch backend, not {keras.backend.backend()!r} "
        "(set KERAS_BACKEND)"
    )
_Backend: Any = import_module(f"adabelief_tf._backend_{keras.backend.backend()}").Backend

SPELLING = {
    "lr": "learning_rate",
    "betas[0]": "beta_1",
    "betas[1]": "beta_2",
    "eps": "epsilon",
    "eps_root": "epsilon_root",
}
_SWITCHES = (
    "weight_decouple",
    "fixed_decay",
    "rectify",
    "degenerated_to_sgd",
    "amsgrad",
    "nesterov",
    "maximize",
    "kahan_sum",
)
_COMPUTE_DTYPE = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}


@keras.saving.register_keras_serializable(package="adabelief")
class AdaBelief(State, _Backend, keras.optimizers.Optimizer):
    """AdaBelief: steps far where the gradient is as predicted and little where it surprises.

    It is Adam whose second moment tracks (g - m)², the surprise of the gradient, in place of g². The
    formula is in `adabelief_core.update`; the steps are those of the core, bit for bit, on the
    TensorFlow, JAX and PyTorch backends, in eager execution, graphs and XLA alike.

    The state of a variable is a `momentum` m, a `belief` s, with `amsgrad` a `max_belief` v, with `kahan_sum`
    a `kahan_comp`: float32 for float16, bfloat16 and float32 variables, whose arithmetic is float32 too, with
    one rounding when the variable is stored; float64 for float64. Keras keeps a `learning_rate` that is a
    number in a variable of `keras.config.floatx()`; where there are float64 variables it is kept in float64.

    Args:
        learning_rate: A float >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or a function
            without arguments that returns the learning rate.
        beta_1: Decay rate β1 of the momentum, in [0, 1).
        beta_2: Decay rate β2 of the belief, in [0, 1).
        epsilon: Added to the denominator, >= 0.
        weight_decay: Decay rate λ, >= 0, or a `LearningRateSchedule` that gives it. None or 0: no decay.
        epsilon_root: Added to the belief at every step, where it accumulates; >= 0. None: `epsilon`.
        weight_decouple: True: decay the variables (AdamW). False: add λp to the gradient (L2).
        fixed_decay: True: decoupled decay by λ in place of learning_rate·λ. Needs `weight_decouple`.
        rectify: Variance rectification of RAdam.
        degenerated_to_sgd: What rectification does in its first steps, while the variance is unknown.
            True: momentum SGD. False: no update.
        amsgrad: Divide by the largest belief seen so far.
        nesterov: Nesterov momentum, as Optax has it.
        maximize: Ascend in place of descending.
        kahan_sum: True: compensated sum of the variables (`adabelief_core.compensated`), which keeps what rounding
            drops: for training in pure bfloat16, where small steps are lost otherwise. None: off.
        update_clip: Bound of each element of u in line 7 of the rule, > 0: no step is longer than
            learning_rate·k·update_clip, and k falls to 1. Where gradients are constant, or clipped by element
            (`clipvalue`), or β1 is 0, g - m goes to 0, and without a bound the step grows and grows. None: no bound.
        clipnorm: Clip each gradient to this norm.
        clipvalue: Clip each element of the gradients to this absolute value.
        global_clipnorm: Clip all gradients together to this norm.
        use_ema: Keep an exponential moving average of the variables.
        ema_momentum: Momentum of that average, in [0, 1].
        ema_overwrite_frequency: Steps after which the average overwrites the variables, again and again.
            None: only at the end of `fit`.
        loss_scale_factor: The loss is multiplied by it, and the gradients are divided by it.
        gradient_accumulation_steps: Gradients to average for one step of the rule, >= 2. None: one.
        name: Name of the optimizer.
        **kwargs: None but what every Keras optimizer takes.

    Raises:
        ValueError: An argument is outside its range or not recognized, or two exclude each other.
        TypeError: An argument is of the wrong type, or, from `build`, a variable is not floating-point.

    Example:
        >>> import numpy as np
        >>> w = keras.Variable(np.ones(2, "float32"))
        >>> optimizer = AdaBelief(learning_rate=0.1)
        >>> optimizer.apply([keras.ops.convert_to_tensor(np.float32([0.5, 0.0]))], [w])
        >>> keras.ops.convert_to_numpy(w).round(4).tolist()
        [0.8888999819755554, 1.0]

        In a model: `model.compile(optimizer=AdaBelief(1e-3, weight_decay=1e-2), loss="mse")`.

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468, Algorithm 2.
    """

    _learning_rate: Any

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-16,
        weight_decay: Any = None,
        *,
        epsilon_root: float | None = None,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        rectify: bool = False,
        degenerated_to_sgd: bool = True,
        amsgrad: bool = False,
        nesterov: bool = False,
        maximize: bool = False,
        kahan_sum: bool | None = None,
        update_clip: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "adabelief",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **kwargs,
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.epsilon_root = epsilon_root
        self.weight_decouple = weight_decouple
        self.fixed_decay = fixed_decay
        self.rectify = rectify
        self.degenerated_to_sgd = degenerated_to_sgd
        self.amsgrad = amsgrad
        self.nesterov = nesterov
        self.maximize = maximize
        self.kahan_sum = kahan_sum
        self.update_clip = update_clip
        self._hyperparameters(0.0 if callable(learning_rate) else learning_rate)
        self._given_rate = learning_rate

    def _hyperparameters(self, learning_rate: float = 0.0) -> Hyperparameters:
        """The attributes as they stand now: Keras lets them be assigned to.

        A weight decay on a schedule is 1 here, for decay there is; its value comes with the step.
        """
        decay = 1.0 if isinstance(self.weight_decay, Schedule) else self.weight_decay
        return Hyperparameters(
            lr=learning_rate,
            betas=(self.beta_1, self.beta_2),
            eps=self.epsilon,
            eps_root=self.epsilon_root,
            weight_decay=0.0 if decay is None else decay,
            update_clip=self.update_clip,
            **{name: getattr(self, name) for name in _SWITCHES},
            spelling=SPELLING,
        )

    def build(self, variables: Sequence[Any]) -> None:
        """Create the state of these variables, once.

        Args:
            variables: The trainable variables: float16, bfloat16, float32 or float64.

        Raises:
            TypeError: A variable of another dtype.
        """
        if self.built:
            return
        for variable in variables:
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if not self._overwrite_variable_with_gradient(variable) and dtype not in _COMPUTE_DTYPE:
                raise TypeError(
                    f"Invalid variable {_name(variable)!r}: dtype {dtype} (expected {', '.join(_COMPUTE_DTYPE)})"
                )
        if any(keras.backend.standardize_dtype(variable.dtype) == "float64" for variable in variables):
            self._widen_learning_rate()
        super().build(variables)
        self._momentums = [self._state(variable, "momentum") for variable in variables]
        self._beliefs = [self._state(variable, "belief") for variable in variables]
        if self.amsgrad:
            self._max_beliefs = [self._state(variable, "max_belief") for variable in variables]
        if self.kahan_sum:
            self._kahan_comps = [self._state(variable, "kahan_comp") for variable in variables]

    def _widen_learning_rate(self) -> None:
        """Keep a learning rate that is a number in float64: Keras rounds it to `floatx`."""
        old = self._learning_rate
        if not isinstance(old, keras.Variable) or old.dtype == "float64":
            return
        value, rounded = (
            float(keras.ops.convert_to_numpy(x)) for x in (old.value, keras.ops.cast(self._given_rate, old.dtype))
        )
        if value == rounded:  # as it was given, and not assigned to
            value = self._given_rate
        with keras.name_scope(self.name, caller=self):
            self._learning_rate = keras.Variable(
                np.float64(value), name="learning_rate", dtype="float64", trainable=False, aggregation=old.aggregation
            )
        self._untrack_variable(old)

    def add_variable_from_reference(self, reference_variable: Any, name: Any = None, initializer: Any = "zeros") -> Any:
        """Add a variable like one of the model's, as Keras has it; but gradients accumulate in the compute dtype."""
        if name == "gradient_accumulator" and not self._overwrite_variable_with_gradient(reference_variable):
            return self._state(reference_variable, name)
        return super().add_variable_from_reference(reference_variable, name=name, initializer=initializer)

    def _state(self, variable: Any, name: str) -> Any:
        """A state variable of the compute dtype; None for one that Keras overwrites with its gradient."""
        if self._overwrite_variable_with_gradient(variable):
            return None
        with self._beside(variable):
            return self.add_variable(
                shape=variable.shape,
                dtype=_COMPUTE_DTYPE[keras.backend.standardize_dtype(variable.dtype)],
                layout=getattr(variable, "_layout", None),
                name=f"{_name(variable).replace('/', '_').replace(':', '_')}_{name}",
            )

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Take one step.

        Args:
            grads: Gradients, one for each variable and of its shape; None leaves a variable as it is.
            trainable_variables: The variables, which build the optimizer at the first call. None: those it
                was built with.

        Raises:
            ValueError: The gradients do not match the variables in number or shape or are complex, or a
                variable is unknown. Nothing has changed.
        """
        grads = list(grads)
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if trainable_variables is not None and len(grads) != len(variables):
            raise ValueError(f"Invalid grads: {len(grads)} gradients for {len(variables)} variables")
        # A shorter list without variables is Keras' to refuse.
        for i, (gradient, variable) in enumerate(zip(grads, variables, strict=False)):
            if gradient is None:
                continue
            grads[i] = self._prepared(gradient, variable)
            if self._is_complex(grads[i]):
                dtype = keras.backend.standardize_dtype(grads[i].dtype)
                raise ValueError(f"Invalid gradient of {_name(variable)!r}: dtype {dtype} (expected real numbers)")
            self._check_shape(grads[i], variable)
        super().apply(grads, None if trainable_variables is None else variables)

    def _check_shape(self, gradient: Any, variable: Any) -> None:
        if not self._fits(gradient, variable):
            raise ValueError(
                f"Invalid gradient of {_name(variable)!r}: shape {tuple(gradient.shape)} "
                f"(expected {tuple(variable.shape)}, as the variable)"
            )

    def _prepared(self, gradient: Any, variable: Any) -> Any:
        """The gradient as Keras' base class takes it.

        Half precision overflows in the square of a norm and in a sum of gradients: those are taken in float32.
        """
        early = (self.clipnorm, self.clipvalue, self.global_clipnorm, self.loss_scale_factor)
        if not self.gradient_accumulation_steps and all(option is None for option in early):
            return self._received(gradient, variable)
        gradient = self._dense(gradient, variable)
        dtype = keras.backend.standardize_dtype(gradient.dtype)
        if dtype in ("float16", "bfloat16") and not self._overwrite_variable_with_gradient(variable):
            return keras.ops.cast(gradient, "float32")
        return gradient

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing: the rule decays the variables, in its lines 2, 9 and 10."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an optimizer like this one, for `from_config`."""
        names = ("beta_1", "beta_2", "epsilon", "epsilon_root", "update_clip", *_SWITCHES)
        config = super().get_config() | {name: getattr(self, name) for name in names}
        if isinstance(self.weight_decay, Schedule):
            config["weight_decay"] = keras.saving.serialize_keras_object(self.weight_decay)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimizer of a `get_config`.

        Args:
            config: Arguments; schedules as Keras serializes them.
            custom_objects: Names in `config` to classes that are not registered with Keras.
        """
        config = {
            name: keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
            if name in ("learning_rate", "weight_decay") and isinstance(value, dict)
            else value
            for name, value in config.items()
        }
        return cls(**config)


def _name(variable: Any) -> str:
    return getattr(variable, "path", variable.name)
