"""Run by `nox -s build`: what `python -m build` made installs into an empty environment and imports there.

Usage: python install_built.py DIST
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import virtualenv

dist = Path(sys.argv[1])
artifacts = [max(dist.glob(pattern), key=lambda path: path.stat().st_mtime) for pattern in ("*.whl", "*.tar.gz")]
names = zipfile.ZipFile(artifacts[0]).namelist()
for package in ("core", "torch", "tf", "jax"):
    assert f"adabelief_{package}/__init__.py" in names
    assert f"adabelief_{package}/py.typed" in names
assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks", "docs"))]

CODE = "import adabelief_core as a, sys; assert 'site-packages' in a.__file__; print(a.__version__)"
for artifact in artifacts:
    with tempfile.TemporaryDirectory() as folder:
        virtualenv.cli_run([folder])
        python = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", artifact], check=True)
        subprocess.run([python, "-c", CODE], cwd=folder, check=True)
        command = [python, "-m", "adabelief_core", "parity", "--adapter", "numpy", "--dtype", "float32"]
        subprocess.run(command, cwd=folder, check=True)
    sys.stdout.write(f"{artifact.name} installs, imports and keeps its bits\n")
