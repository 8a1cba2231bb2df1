"""The table of problems: hyperparameters × dtype, each over tensors of every awkward kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np

from adabelief_core._hyperparameters import Hyperparameters
from adabelief_core._inplace import compute_dtype

DTYPES = ("float32", "float64", "bfloat16", "float16", "complex64")
"""The dtypes that the harness knows."""

# Keras keeps the learning rate in a float32 variable; one that float32 holds exactly is the same to all.
_LR = float(np.float32(0.01))

_SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "empty": (0, 3),
    "odd": (7, 13),
    "strided": (9, 5),
    "long": (4099,),
    "spread": (257,),
    "constant": (33,),
    "zero": (5,),
    "huge": (17,),
    "tiny": (17,),
    "fading": (17,),
    "nonfinite": (4, 11),
}


def numpy_dtype(name: str) -> np.dtype:
    """The dtype of that name; bfloat16 needs ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


@dataclass(frozen=True)
class Problem:
    """One run: parameters, a stream of gradients, hyperparameters."""

    name: str
    dtype: str
    options: Mapping[str, Any]
    """Fields of `Hyperparameters` that differ from their defaults, `lr` apart."""
    steps: int = 12
    lr: float = _LR
    tensors: tuple[str, ...] = tuple(_SHAPES)
    seed: int = 0

    @cached_property
    def h(self) -> Hyperparameters:
        """The hyperparameters."""
        return Hyperparameters(lr=self.lr, **self.options)

    def params(self) -> dict[str, np.ndarray]:
        """Name to initial parameter, new arrays at every call; "strided" is not contiguous."""
        rng = np.random.default_rng([self.seed, 0])
        params = {name: self._normal(rng, name) for name in self.tensors}
        if "strided" in params:
            wide = np.zeros((9, 10), numpy_dtype(self.dtype))
            wide[:, ::2] = params["strided"]
            params["strided"] = wide[:, ::2]
        return params

    def grads(self) -> Iterator[dict[str, np.ndarray]]:
        """The gradients of each step: name to array of the parameter's shape and dtype."""
        rng = np.random.default_rng([self.seed, 1])
        for step in range(self.steps):
            yield {name: self._grad(rng, name, step) for name in self.tensors}

    def _normal(self, rng: np.random.Generator, name: str) -> np.ndarray:
        shape, dtype = _SHAPES[name], numpy_dtype(self.dtype)
        x = np.asarray(rng.standard_normal(shape))
        if dtype.kind == "c":
            x = np.asarray(x + 1j * rng.standard_normal(shape))
        return x.astype(dtype)

    def _grad(self, rng: np.random.Generator, name: str, step: int) -> np.ndarray:
        g = self._normal(rng, name)
        narrow = self.dtype == "float16"
        if name == "constant":
            g[...] = 0.375
        elif name == "zero":
            g[...] = 0
        elif name == "huge":
            g *= g.dtype.type(8192 if narrow else 1e30)
        elif name == "tiny":
            g *= g.dtype.type(2**-12 if narrow else 1e-30)
        elif name == "fading" and step:
            g[...] = 0
        elif name == "fading":
            # m is normal at first, subnormal some steps on: 0 for the rule.
            g *= g.dtype.type(2**-14 if narrow else 25 * float(np.finfo(compute_dtype(g.dtype)).smallest_normal))
        elif name == "spread":
            g *= (10.0 ** rng.uniform(*((-4, 4) if narrow else (-14, 14)), g.shape)).astype(g.real.dtype)
        elif name == "nonfinite" and step > 0:
            g[0, step % 11] = (np.nan, np.inf, -np.inf)[step % 3]
        return g


_FACTORS: dict[str, tuple[dict[str, Any], ...]] = {
    "decay": (
        {},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "weight_decouple": False},
        {"weight_decay": 0.01, "fixed_decay": True},
    ),
    "rectify": ({}, {"rectify": True}, {"rectify": True, "degenerated_to_sgd": False}),
    "amsgrad": ({}, {"amsgrad": True}),
    "nesterov": ({}, {"nesterov": True}),
    "maximize": ({}, {"maximize": True}),
    "kahan": ({}, {"kahan_sum": True}),
    # Some elements exceed it and some do not, and every dtype rounds it.
    "clip": ({}, {"update_clip": 0.15}),
    "eps": ({}, {"eps": 1e-8, "eps_root": 1e-12}, {"eps": 1e-3, "eps_root": 0.0}),
    "betas": ({}, {"betas": (0.5, 0.9)}, {"betas": (0.0, 0.999)}, {"betas": (0.9, 0.0)}, {"betas": (0.9, 0.6)}),
}


@cache
def _covering_rows() -> list[tuple[int, ...]]:
    """Choices, one a factor, so that every pair of values of two factors stands in one row: greedily."""
    sizes = [range(len(values)) for values in _FACTORS.values()]

    def pairs(row: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
        return set(itertools.combinations(enumerate(row), 2))

    every = {row: pairs(row) for row in itertools.product(*sizes)}
    left = set().union(*every.values())
    rows = []
    while left:
        rows.append(max(every, key=lambda row: len(every[row] & left)))
        left -= every[rows[-1]]
    return rows


def _problem(row: tuple[int, ...], dtype: str, **fields: Any) -> Problem:
    options: dict[str, Any] = {}
    for choice, values in zip(row, _FACTORS.values(), strict=True):
        options |= values[choice]
    name = ", ".join(f"{key}={value}" for key, value in options.items()) or "defaults"
    problem = Problem(name, dtype, options, **fields)
    if problem.h.kahan_sum:
        # XLA and TensorFlow flush a subnormal compensation, and a moment that fades leaves one: see docs/numerics.md.
        problem = replace(problem, tensors=tuple(tensor for tensor in problem.tensors if tensor != "fading"))
    return problem


def covering(dtype: str, **fields: Any) -> list[Problem]:
    """Problems in which every option, and every pair of two options' values, occurs.

    Args:
        dtype: One of `DTYPES`.
        **fields: Other fields of `Problem`.
    """
    return [_problem(row, dtype, **fields) for row in _covering_rows()]


def quick(dtype: str, **fields: Any) -> list[Problem]:
    """Two problems: the defaults, and most of the options at once across the switch of rectification."""
    rows = [(0,) * len(_FACTORS), (*[1] * (len(_FACTORS) - 1), 0)]
    return [_problem(row, dtype, **fields) for row in rows]
