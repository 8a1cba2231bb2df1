"""AdaBelief in NumPy: the rule, its scalars, its state, and an optimizer of its own.

This package imports NumPy and the standard library alone. The adapters `adabelief_torch`,
`adabelief_tf` and `adabelief_jax` build on what it exports.
"""

from adabelief_core import presets
from adabelief_core._hyperparameters import Hyperparameters, Variant, spelt
from adabelief_core._inplace import Job, Kernel, as_reals, check_kernel, compute_dtype, default_kernel, update_inplace
from adabelief_core._optimizer import AdaBelief, ParameterState
from adabelief_core._rule import Coefficients, assemble, belief, coefficients, compensated, update
from adabelief_core._scalars import LAST_STEP, StepScalars, Tables, plain_product, step_scalars, tables

__version__ = "0.1.0"

__all__ = [
    "LAST_STEP",
    "AdaBelief",
    "Coefficients",
    "Hyperparameters",
    "Job",
    "Kernel",
    "ParameterState",
    "StepScalars",
    "Tables",
    "Variant",
    "as_reals",
    "assemble",
    "belief",
    "check_kernel",
    "coefficients",
    "compensated",
    "compute_dtype",
    "default_kernel",
    "plain_product",
    "presets",
    "spelt",
    "step_scalars",
    "tables",
    "update",
    "update_inplace",
]
