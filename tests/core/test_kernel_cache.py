"""What numba keeps on disk of the kernels, which processes share."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

CODE = """
import numpy as np
from adabelief_core import AdaBelief

for dtype in (np.float16, np.float32):
    for options in ({}, {"rectify": True}):
        both = [{"w": np.ones(3, dtype)}, {"w": np.ones(3, dtype)}]
        for params, kernel in zip(both, ("numba", "readable")):
            optimizer = AdaBelief(params, lr=0.1, kernel=kernel, **options)
            for _ in range(6):
                optimizer.step({"w": np.full(3, 0.5, dtype)})
        assert np.array_equal(both[0]["w"], both[1]["w"])
"""


def run(**environment: str) -> None:
    subprocess.run([sys.executable, "-c", CODE], env={**os.environ, **environment}, check=True)


def test_no_two_kernels_share_an_index(tmp_path: Path) -> None:
    """Two processes would race for its next number: each of their kernels might be read as the other."""
    run(NUMBA_CACHE_DIR=str(tmp_path))
    files = [path.name for path in tmp_path.rglob("*.nb?")]
    # <name>.nbi, and <name>.<number>.nbc for all that it lists
    indices = Counter(name.removesuffix(".nbi") for name in files if name.endswith(".nbi"))
    kernels = Counter(name.rsplit(".", 2)[0] for name in files if name.endswith(".nbc"))
    assert kernels == indices
    assert set(kernels.values()) == {1}
    assert len(kernels) == 2 * 2  # two dtypes; a phase that adapts, which rectify shares, and one that does not
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    run(NUMBA_CACHE_DIR=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")} == before


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    # numba's only place is a zip archive, out of which the package was not imported.
    run(NUMBA_CACHE_DIR=str(tmp_path), NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator")
    assert not list(tmp_path.rglob("*"))


def test_files_that_are_cut_short(tmp_path: Path) -> None:
    run(NUMBA_CACHE_DIR=str(tmp_path))
    kernels, indices = (sorted(tmp_path.rglob(f"*.{ending}")) for ending in ("nbc", "nbi"))
    for path in (*kernels[::2], *indices[1::2]):
        os.truncate(path, 20)
    run(NUMBA_CACHE_DIR=str(tmp_path))
