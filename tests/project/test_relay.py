"""A run that changes framework every two steps has, at each step, the bits of the run that never moves."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from relay_leg import problems

from adabelief_core.portable import Snapshot

LEG = Path(__file__).parent / "relay_leg.py"
EVERY = 2


def leg(name, folder, number, dtypes, route):
    """Run one leg in a process of its own, in which no other framework is."""
    last = EVERY * (number + 1)
    # In half precision Optax rounds Δ, as its convention has it: so does the run that never moves, in those steps.
    rounded = [route[step // EVERY] == "optax" for step in range(last)]
    request = {"name": name, "folder": str(folder), "first": last - EVERY + 1, "last": last, "dtypes": dtypes}
    backend = {"KERAS_BACKEND": name.partition("/")[2], "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, LEG, json.dumps({**request, "rounded": rounded})],
        env={**os.environ, **backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


REAL = ["numpy", "torch", "optax", "keras/tensorflow", "keras/jax", "keras/torch", "numpy"]


@pytest.mark.parametrize(
    ("dtypes", "route"),
    [
        (["float32", "float64", "bfloat16", "float16"], REAL),
        (["complex64"], ["numpy", "torch", "optax", "torch", "numpy"]),  # Keras has no complex variables
    ],
    ids=["real", "complex"],
)
def test_relay(dtypes, route, tmp_path):
    for number, name in enumerate(route):
        report = leg(name, tmp_path, number, dtypes, route)
        assert report == {"runs": len(problems(dtypes)), "differences": []}, name
    steps = [entry.step for file in tmp_path.iterdir() for entry in Snapshot.load(file).entries.values()]
    assert set(steps) == {EVERY * len(route)}


def test_one_ulp_between_two_legs_is_seen(tmp_path):
    leg("numpy", tmp_path, 0, ["float32"], REAL)
    file = tmp_path / "0.safetensors"
    entries = dict(Snapshot.load(file).entries)
    p = entries["odd"].p.copy()
    p[0, 0] = np.nextafter(p[0, 0], np.float32(9))
    Snapshot({**entries, "odd": replace(entries["odd"], p=p)}).save(file)
    found = leg("numpy", tmp_path, 1, ["float32"], REAL)["differences"]
    assert found[0] == "float32, defaults: step 3, p of 'odd'"
