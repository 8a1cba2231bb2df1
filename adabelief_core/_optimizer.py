"""AdaBelief for parameters that are NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from adabelief_core._hyperparameters import Hyperparameters, number
from adabelief_core._inplace import Job, Kernel, as_reals, check_kernel, compute_dtype, update_inplace
from adabelief_core._rule import coefficients

LearningRate: TypeAlias = float | Callable[[int], float]


@dataclass
class ParameterState:
    """One parameter's state. Arrays have the parameter's shape and its compute dtype (or its complex one)."""

    step: int
    """Steps taken."""
    m: np.ndarray
    """First moment."""
    s: np.ndarray
    """Second moment of the surprise, g - m."""
    v: np.ndarray | None = None
    """Largest s so far, under amsgrad; else None."""
    k: np.ndarray | None = None
    """Compensation of the parameter's sum, under kahan_sum; else None."""


@dataclass
class _Entry:
    param: np.ndarray
    h: Hyperparameters
    lr: LearningRate | None
    """This parameter's own learning rate; None: the optimizer's."""
    state: ParameterState


class AdaBelief:
    """AdaBelief over a dictionary of NumPy arrays, which `step` changes in place.

    Steps far where the gradient is as predicted and little where it is not: Adam with (g - m)² in place
    of g². The formula is in `adabelief_core.update`.

    Args:
        params: Name to parameter: float16, bfloat16 (ml_dtypes), float32, float64, complex64 or
            complex128, any shape, any strides, writeable. The arrays are kept, not copied.
        lr: Learning rate, or a function from the number of steps taken (0 at the first) to it.
        overrides: Name to the hyperparameters in which that parameter differs:
            `{"bias": {"weight_decay": 0.0}}`.
        kernel: "numpy", "numba" (the extra `fast`) or "readable". None: the fastest installed. All
            give the same bits.
        threads: The most threads that a step uses, from a million elements on. None: the cores of
            this process, 8 at the most.
        **hyper: The other fields of `Hyperparameters`.

    Raises:
        ValueError: An invalid value; the message names the argument and the value.
        TypeError: An unknown name, or a parameter that is no array of a supported dtype.

    Examples:
        >>> from adabelief_core import AdaBelief
        >>> params = {"w": np.array([1.0, 2.0])}
        >>> optimizer = AdaBelief(params, lr=0.1)
        >>> for _ in range(200):
        ...     optimizer.step({"w": 2 * params["w"]})      # the gradient of |w|²
        >>> bool(np.abs(params["w"]).max() < 0.1)
        True

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468.
    """

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        lr: LearningRate = 1e-3,
        *,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        kernel: Kernel | None = None,
        threads: int | None = None,
        **hyper: Any,
    ) -> None:
        check_kernel(kernel)
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"Invalid threads: {threads!r} (expected None or an integer >= 1)")
        self._kernel: Kernel | None = kernel
        self._threads = threads
        overrides = overrides or {}
        _refuse_unknown("overrides", overrides, params)
        shared = _hyperparameters({"lr": lr, **hyper})
        self._lr = lr
        self._entries: dict[str, _Entry] = {}
        names: dict[int, str] = {}
        for name, param in params.items():
            _check_param(name, param)
            if param.size and names.setdefault(param.ctypes.data, name) != name:
                raise ValueError(f"Invalid params[{name!r}]: the memory of params[{names[param.ctypes.data]!r}]")
            own = overrides.get(name)
            h = _hyperparameters({"lr": lr, **hyper, **own}) if own else shared
            self._entries[name] = _Entry(param, h, (own or {}).get("lr"), _zero_state(param, h))

    @property
    def lr(self) -> LearningRate:
        """The learning rate of every parameter without one of its own; settable."""
        return self._lr

    @lr.setter
    def lr(self, lr: LearningRate) -> None:
        if not callable(lr):
            _check_lr(lr, "lr")
        self._lr = lr

    @property
    def state(self) -> dict[str, ParameterState]:
        """Name to the live state of that parameter."""
        return {name: entry.state for name, entry in self._entries.items()}

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        """Take one step, in place. The gradients are only read.

        Args:
            grads: Name to gradient, one for each parameter, of its shape and dtype.

        Raises:
            ValueError: A name is missing or unknown, a gradient has another shape or dtype than its
                parameter, or the learning rate's function returned an invalid value. Nothing has
                changed.
        """
        _refuse_unknown("grads", grads, self._entries)
        _refuse_missing("grads", grads, self._entries)
        jobs = []
        known: dict[tuple[Any, ...], Any] = {}
        for name, entry in self._entries.items():
            grad, param, state = grads[name], entry.param, entry.state
            if not isinstance(grad, np.ndarray) or grad.shape != param.shape or grad.dtype != param.dtype:
                raise ValueError(
                    f"Invalid grads[{name!r}]: {_describe(grad)} (expected {_describe(param)}, as the parameter)"
                )
            lr = self._lr if entry.lr is None else entry.lr
            label = "lr" if entry.lr is None else f"overrides[{name!r}]['lr']"
            rate = _check_lr(lr(state.step), f"{label}({state.step})") if callable(lr) else float(lr)
            dtype = compute_dtype(param.dtype)
            key = (id(entry.h), state.step, dtype, rate)
            if key not in known:
                known[key] = coefficients(entry.h, state.step + 1, dtype, rate)
            p, g, m, s = (as_reals(x) for x in (param, grad, state.m, state.s))
            v, k = (None if x is None else as_reals(x) for x in (state.v, state.k))
            jobs.append(Job(p, g, m, s, v, k, known[key], entry.h.variant))
        update_inplace(jobs, kernel=self._kernel, threads=self._threads)
        for entry in self._entries.values():
            entry.state.step += 1

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """A copy of the state: name to `{"step", "m", "s"}`, `"v"` under amsgrad and `"k"` under kahan_sum."""
        out: dict[str, dict[str, Any]] = {}
        for name, entry in self._entries.items():
            state = entry.state
            out[name] = {"step": state.step, "m": state.m.copy(), "s": state.s.copy()}
            out[name] |= {key: x.copy() for key, x in (("v", state.v), ("k", state.k)) if x is not None}
        return out

    def load_state_dict(self, state_dict: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over a copy of a state that `state_dict` gave.

        Args:
            state_dict: What `state_dict` gave, for every parameter.

        Raises:
            ValueError: A name is missing or unknown, or an array has another shape or dtype than this
                optimizer's. Nothing has changed.
        """
        _refuse_unknown("state_dict", state_dict, self._entries)
        _refuse_missing("state_dict", state_dict, self._entries)
        loaded: dict[str, ParameterState] = {}
        for name, entry in self._entries.items():
            given, current = state_dict[name], entry.state
            label = f"state_dict[{name!r}]"
            expected = {key: x for key, x in vars(current).items() if x is not None}
            _refuse_unknown(label, given, expected)
            _refuse_missing(label, given, expected)
            step = given["step"]
            if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
                raise ValueError(f"Invalid {label}['step']: {step!r} (expected an integer >= 0)")
            for key in expected.keys() - {"step"}:
                if _describe(given[key]) != _describe(expected[key]):
                    raise ValueError(
                        f"Invalid {label}[{key!r}]: {_describe(given[key])} (expected {_describe(expected[key])})"
                    )
            loaded[name] = ParameterState(int(step), **{k: x.copy() for k, x in given.items() if k != "step"})
        for name, state in loaded.items():
            self._entries[name].state = state


def _hyperparameters(options: dict[str, Any]) -> Hyperparameters:
    _refuse_keywords(options)
    if callable(options["lr"]):  # its values are checked when it is called
        options = {key: x for key, x in options.items() if key != "lr"}
    return Hyperparameters(**options)


def _refuse_keywords(options: Iterable[str]) -> None:
    for name in options:
        if name not in {field.name for field in fields(Hyperparameters)}:
            raise TypeError(f"AdaBelief() got an unexpected keyword argument {name!r}")


def _refuse_unknown(argument: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"Invalid {argument}: unknown {', '.join(map(repr, unknown))}")


def _refuse_missing(argument: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    missing = sorted(set(wanted) - set(given))
    if missing:
        raise ValueError(f"Invalid {argument}: missing {', '.join(map(repr, missing))}")


def _check_lr(lr: object, name: str) -> float:
    if not 0 <= (rate := number(lr, name)) < math.inf:
        raise ValueError(f"Invalid {name}: {lr} (expected a finite number >= 0)")
    return rate


def _check_param(name: str, param: object) -> None:
    if not isinstance(param, np.ndarray):
        raise TypeError(f"Invalid params[{name!r}]: {param!r} (expected a numpy.ndarray)")
    try:
        compute_dtype(param.dtype)
    except TypeError as error:
        raise TypeError(f"Invalid params[{name!r}]: {error}") from None
    if not param.flags.writeable:
        raise ValueError(f"Invalid params[{name!r}]: a read-only array (expected a writeable one)")
    if param.size and any(stride == 0 and size > 1 for stride, size in zip(param.strides, param.shape, strict=True)):
        raise ValueError(f"Invalid params[{name!r}]: several elements share one memory location")


def _zero_state(param: np.ndarray, h: Hyperparameters) -> ParameterState:
    real = compute_dtype(param.dtype)
    dtype = np.result_type(real, np.complex64) if param.dtype.kind == "c" else real
    m, s, v, k = (np.zeros_like(param, dtype) if wanted else None for wanted in (True, True, h.amsgrad, h.kahan_sum))
    return ParameterState(0, m, s, v, k)  # type: ignore[arg-type]


def _describe(x: object) -> str:
    if isinstance(x, np.ndarray):
        return f"{x.dtype.name} array of shape {x.shape}"
    return repr(x)
