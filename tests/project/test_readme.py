"""What the README and the documentation say of files is so."""

import re
from importlib import metadata

import pytest
from pages import PAGES, ROOT

import adabelief_core


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_one_version():
    assert metadata.version("adabelief") == adabelief_core.__version__
    assert f"version: {adabelief_core.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_each_package_is_typed():
    for package in ("adabelief_core", "adabelief_torch", "adabelief_tf", "adabelief_jax"):
        assert (ROOT / package / "py.typed").exists()
