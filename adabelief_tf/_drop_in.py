"""adabelief-tf's optimizer, by its name and arguments, on Keras 3."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from adabelief_core import Hyperparameters, Tables, tables
from adabelief_tf._optimizer import AdaBelief
from adabelief_tf._tensors import Schedule


@keras.saving.register_keras_serializable(package="adabelief")
class WarmupLinearDecay(Schedule):
    """A learning rate that climbs linearly from 0 to its full height, and falls linearly from there.

        lr · t/w                                    t <= w = warmup_proportion · total_steps
        lr + (min_lr - lr) · (t - w)/(n - w)        w <  t <= n = total_steps
        min_lr                                      t >  n

    at step t, counted from 1. It is what `AdaBeliefOptimizer` does with `total_steps`.

    Args:
        learning_rate: lr, a float >= 0 or a schedule.
        total_steps: n, an int > 0.
        warmup_proportion: In [0, 1].
        min_lr: A float >= 0.
        name: Name of the schedule.

    Raises:
        ValueError: An argument is outside its range.

    Examples:
        >>> schedule = WarmupLinearDecay(1.0, total_steps=10, warmup_proportion=0.5)
        >>> [round(float(schedule(step)), 6) for step in (0, 4, 6, 20)]     # Keras counts from 0
        [0.2, 1.0, 0.6, 0.0]
    """

    def __init__(
        self,
        learning_rate: Any,
        total_steps: int,
        warmup_proportion: float = 0.1,
        min_lr: float = 0.0,
        name: str = "WarmupLinearDecay",
    ) -> None:
        super().__init__()
        if not isinstance(learning_rate, Schedule):
            Hyperparameters(lr=learning_rate, spelling={"lr": "learning_rate"})
        if not total_steps > 0:
            raise ValueError(f"Invalid total_steps: {total_steps} (expected a number > 0)")
        if not 0 <= warmup_proportion <= 1:
            raise ValueError(f"Invalid warmup_proportion: {warmup_proportion} (expected a number in [0, 1])")
        Hyperparameters(lr=min_lr, spelling={"lr": "min_lr"})
        self.learning_rate = learning_rate
        self.total_steps = int(total_steps)
        self.warmup_proportion = warmup_proportion
        self.min_lr = min_lr
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate of the step after `step` of them, a float32 scalar."""
        given = self.learning_rate
        peak = ops.convert_to_tensor(given(step) if isinstance(given, Schedule) else given, "float32")
        t = ops.cast(step, "float32") + 1.0
        warmup = self.total_steps * self.warmup_proportion
        fall = max(self.total_steps - warmup, 1.0)
        falling = peak + (self.min_lr - peak) / fall * ops.clip(t - warmup, 0.0, fall)
        return ops.where(t <= warmup, peak * (t / warmup), falling) if warmup else falling

    def get_config(self) -> dict[str, Any]:
        """The arguments that make a schedule like this one."""
        given = self.learning_rate
        return {
            "learning_rate": keras.saving.serialize_keras_object(given) if isinstance(given, Schedule) else given,
            "total_steps": self.total_steps,
            "warmup_proportion": self.warmup_proportion,
            "min_lr": self.min_lr,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The schedule of a `get_config`."""
        return cls(**config | {"learning_rate": keras.saving.deserialize_keras_object(config["learning_rate"])})


@keras.saving.register_keras_serializable(package="adabelief")
class AdaBeliefOptimizer(AdaBelief):
    """adabelief-tf 0.2.1's optimizer, with its arguments and defaults, on any backend of Keras 3.

    The steps are those of `AdaBelief` with these defaults; docs/migrating.md says where they differ from
    adabelief-tf's.

    Args:
        learning_rate: A number >= 0, a `LearningRateSchedule`, or a function without arguments.
        beta_1: Decay rate β1 of the momentum, in [0, 1).
        beta_2: Decay rate β2 of the belief, in [0, 1).
        epsilon: As `AdaBelief`'s; 0 or None: `keras.config.epsilon()`.
        weight_decay: Decoupled decay, a number >= 0 or a `LearningRateSchedule`.
        rectify: Variance rectification of RAdam.
        amsgrad: Divide by the largest belief seen so far.
        sma_threshold: The length ρ of the moving average from which rectification is adaptive, >= 4.
        total_steps: Steps of a warm-up and linear decay of the learning rate, `WarmupLinearDecay`. 0: neither.
        warmup_proportion: The part of them that warms up, in [0, 1].
        min_lr: The learning rate after them, >= 0.
        name: Name of the optimizer.
        print_change_log: Nothing is printed.
        lr: Old name of `learning_rate`, which it replaces.
        decay: The learning rate is divided by 1 + decay·(steps so far), as in Keras 2. >= 0.
        **kwargs: What else `AdaBelief` takes: `clipnorm`, `clipvalue`, `use_ema`, ….

    Raises:
        ValueError: An argument is outside its range or not recognized, or two exclude each other.
        TypeError: An argument is of the wrong type.

    Examples:
        >>> optimizer = AdaBeliefOptimizer(lr=1e-3, total_steps=1000, min_lr=1e-5, print_change_log=False)
        >>> round(float(optimizer._learning_rate(99)), 6)  # where the warm-up ends
        0.001

    References:
        https://pypi.org/project/adabelief-tf/0.2.1/
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = 1e-14,
        weight_decay: Any = 0.0,
        rectify: bool = True,
        amsgrad: bool = False,
        sma_threshold: float = 5.0,
        total_steps: int = 0,
        warmup_proportion: float = 0.1,
        min_lr: float = 0.0,
        name: str = "AdaBeliefOptimizer",
        print_change_log: bool = True,
        *,
        lr: Any = None,
        decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        given = learning_rate if lr is None else lr
        # Keras 3 takes floats alone.
        given = given if callable(given) or isinstance(given, bool) else float(given)
        Hyperparameters(lr=decay, spelling={"lr": "decay"})
        if not sma_threshold >= 4:
            raise ValueError(f"Invalid sma_threshold: {sma_threshold} (expected a number >= 4)")
        rate = given
        if decay:
            if callable(given):
                raise ValueError(f"Invalid decay: {decay} (learning_rate is a schedule already)")
            rate = keras.optimizers.schedules.InverseTimeDecay(given, decay_steps=1, decay_rate=decay)
        if total_steps:
            rate = WarmupLinearDecay(rate, total_steps, warmup_proportion, min_lr)
        super().__init__(
            rate,
            beta_1,
            beta_2,
            epsilon or keras.config.epsilon(),
            weight_decay,
            rectify=rectify,
            amsgrad=amsgrad,
            name=name,
            **kwargs,
        )
        self.sma_threshold = sma_threshold
        self.total_steps = total_steps
        self.warmup_proportion = warmup_proportion
        self.min_lr = min_lr
        self.decay = decay
        # What the learning rate was before them, until another is assigned.
        wrapped: tuple[Any, Any] = (rate, given) if rate is not given else (None, None)
        self._wrapped, self._wrapped_rate = wrapped

    def _tables(self, h: Hyperparameters) -> Tables:
        return tables(h.betas, self.sma_threshold)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an optimizer like this one, for `from_config`."""
        config = super().get_config()
        wrapped = self._learning_rate is self._wrapped
        if wrapped:
            given = self._wrapped_rate
            config["learning_rate"] = keras.saving.serialize_keras_object(given) if callable(given) else given
        return config | {
            "sma_threshold": self.sma_threshold,
            "total_steps": self.total_steps if wrapped else 0,
            "warmup_proportion": self.warmup_proportion,
            "min_lr": self.min_lr,
            "decay": self.decay if wrapped else 0.0,
        }

    @property
    def lr(self) -> Any:
        """`learning_rate` by its name in Keras 2; settable."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self.learning_rate = value
