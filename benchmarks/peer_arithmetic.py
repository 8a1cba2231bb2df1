"""What the frameworks' own operations make of the rule's three delicate ones: √, a·b + c, and 1 - β^t."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

COUNT = 20_000
BETA2 = 0.999


def arithmetic() -> tuple[list[str], list[list[str]]]:
    """The table's header and rows."""
    header = ["", "√ float32, wrong", "√ float64, wrong", "a·b + c float32, rounded once", "1 - β2^t float32, off by"]
    rows = []
    for label, sqrt, fma, rest in (
        ("NumPy", np.sqrt, lambda a, b, c: a * b + c, lambda t: np.float32(1) - np.float32(BETA2) ** np.float32(t)),
        ("torch", by_torch(torch.sqrt), by_torch(torch_fma), lambda t: 1 - torch.tensor(BETA2) ** t),
        ("torch.addcmul", None, by_torch(lambda a, b, c: torch.addcmul(c, a, b)), None),
        ("JAX", jnp.sqrt, lambda a, b, c: jnp.asarray(a) * b + c, lambda t: 1 - jnp.float32(BETA2) ** jnp.int32(t)),
        ("JAX, jit", jax.jit(jnp.sqrt), jax.jit(lambda a, b, c: a * b + c), jax.jit(jax_rest)),
    ):
        rows.append(
            [
                label,
                *("-" if sqrt is None else f"{wrong_roots(sqrt, dtype):.2%}" for dtype in (np.float32, np.float64)),
                f"{contracted(fma):.2%}",
                "-" if rest is None else f"{power_error(rest):.1e}",
            ]
        )
    return header, rows


def torch_fma(a: Any, b: Any, c: Any) -> Any:
    """Two operations."""
    return a * b + c


def jax_rest(t: Any) -> Any:
    """1 - β2^t as a compiled step has it."""
    return 1 - jnp.float32(BETA2) ** t


def by_torch(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors as one of arrays."""
    return lambda *arrays: f(*map(torch.from_numpy, arrays)).numpy()


def wrong_roots(sqrt: Callable[[Any], Any], dtype: type) -> float:
    """The share of square roots of numbers in [1, 4) that are not the nearest to the exact one."""
    x, exact = roots(dtype)
    with jax.enable_x64(dtype is np.float64):
        return float(np.mean(np.asarray(sqrt(x)) != exact))


@cache
def roots(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in [1, 4), and their square roots, each rounded from 50 digits."""
    x = np.random.default_rng(0).uniform(1, 4, COUNT).astype(dtype)
    with localcontext() as context:
        context.prec = 50
        return x, np.array([float(Decimal(float(value)).sqrt()) for value in x]).astype(dtype)


def contracted(fma: Callable[..., Any]) -> float:
    """The share of a·b + c that differ from the product, rounded, plus c, rounded."""
    a, b, c = np.random.default_rng(0).standard_normal((3, COUNT)).astype(np.float32)
    return float(np.mean(np.asarray(fma(a, b, c)) != a * b + c))


def power_error(rest: Callable[[int], Any]) -> float:
    """The largest relative error of 1 - β2^t over some t from 1 to 1000."""
    exact = {t: 1 - Decimal(BETA2) ** t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)}
    return max(float(abs(Decimal(float(rest(t))) / e - 1)) for t, e in exact.items())
