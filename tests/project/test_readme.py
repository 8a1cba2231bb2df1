"""Every Python block of the README and the documentation runs as it stands; what they say of files is so."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import adabelief_core

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_runs(block, tmp_path):
    for framework in ("torch", "keras", "jax"):
        if re.search(rf"^import {framework}\b", block, re.MULTILINE) and find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_there_are_blocks_for_all_four():
    text = "\n".join(param.values[0] for param in BLOCKS)
    for package in ("adabelief_core", "adabelief_torch", "adabelief_tf", "adabelief_jax"):
        assert f"from {package} import" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_one_version():
    assert metadata.version("adabelief") == adabelief_core.__version__
    assert f"version: {adabelief_core.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_readme_installs_extras_that_exist():
    for extras in re.findall(r"adabelief\[([\w,]+)\]", (ROOT / "README.md").read_text()):
        assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_each_package_is_typed():
    for package in ("adabelief_core", "adabelief_torch", "adabelief_tf", "adabelief_jax"):
        assert (ROOT / package / "py.typed").exists()
