"""What `nox -s docs` asks of the built site can fail: tests/built_site.py on pages that are wrong."""

import importlib.util

import pytest
from pages import ROOT

SPEC = importlib.util.spec_from_file_location("built_site", ROOT / "tests" / "built_site.py")
built_site = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(built_site)


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/math.js"></script>',
        '<script src="//cdn.example/math.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<link rel="preconnect" href="https://fonts.example" crossorigin>',
        '<img src="http://example/badge.svg">',
        '<img srcset="https://example/a.png 2x" alt="">',
        '<iframe src="https://example"></iframe>',
        '<style>@import "https://example/a.css";</style>',
        '<p style="background: url(https://example/a.png)">x</p>',
        '<img src="missing.png">',
    ],
)
def test_what_a_page_needs_from_elsewhere_is_seen(html, tmp_path):
    (tmp_path / "page.html").write_text(f"<html><body>{html}</body></html>")
    assert len(list(built_site.problems(tmp_path))) == 1


def test_a_style_sheet_that_needs_something_is_seen(tmp_path):
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.example/a.woff2') }")
    assert list(built_site.problems(tmp_path)) == ["a.css loads https://fonts.example/a.woff2"]


def test_links_and_files_of_the_site_are_no_problem(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"")
    (tmp_path / "page.html").write_text(
        '<link rel="canonical" href="https://example"><a href="https://example">x</a>'
        '<img src="a%20b.png#only-light"><img src="data:image/png;base64,"><script>var x = 1</script>'
    )
    assert list(built_site.problems(tmp_path)) == []


def test_a_name_without_documentation_is_seen(tmp_path):
    (tmp_path / "api").mkdir()
    names = built_site.public_names()
    assert {"adabelief_core.update", "adabelief_torch.AdaBelief", "adabelief_tf.AdaBelief"} <= names
    page = "".join(f'<h2 id="{name}"></h2>' for name in names - {"adabelief_jax.adabelief"})
    (tmp_path / "api" / "all.html").write_text(page)
    assert built_site.undocumented(tmp_path) == {"adabelief_jax.adabelief"}


def test_all_packages_are_looked_at():
    # Each folder whose __init__ has an __all__.
    folders = {path.parent for path in ROOT.glob("adabelief_*/**/__init__.py") if "__all__" in path.read_text()}
    assert {".".join(path.relative_to(ROOT).parts) for path in folders} == set(built_site.PACKAGES)
