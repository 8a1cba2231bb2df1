"""The two import rules: the core imports NumPy alone, and no adapter imports another."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

CHECK = """
import sys
before = set(sys.modules)
import {package}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(new & {{{forbidden}}}))
"""

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax", "optax", "numba", "ml_dtypes"}
PACKAGES = {"adabelief_torch", "adabelief_tf", "adabelief_jax"}


def imported(package, forbidden):
    code = CHECK.format(package=package, forbidden=", ".join(map(repr, sorted(forbidden))))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return out.stdout.split()


@pytest.mark.parametrize("package", ["adabelief_core", "adabelief_core.parity", "adabelief_core._cli"])
def test_the_core_imports_no_framework(package):
    assert imported(package, FRAMEWORKS | PACKAGES) == []


@pytest.mark.parametrize(
    ("package", "framework", "allowed"),
    [
        ("adabelief_torch", "torch", {"torch", "numba", "ml_dtypes"}),
        ("adabelief_jax", "optax", {"jax", "optax", "ml_dtypes"}),
    ],
)
def test_an_adapter_imports_its_own_framework_alone(package, framework, allowed):
    """That of Keras: see `test_no_other_adapter_is_imported` in tests/tf, which runs on each backend."""
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    assert imported(package, (FRAMEWORKS | PACKAGES) - allowed - {package}) == []


def test_the_check_can_fail():
    assert imported("adabelief_core.parity._numpy, numpy.ma, email", {"email"}) == ["email"]
