"""Run by `nox -s docs`: the site that mkdocs built needs nothing from elsewhere, and documents every public name.

Usage: python built_site.py SITE
"""

import ast
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "adabelief_core",
    "adabelief_core.parity",
    "adabelief_core.portable",
    "adabelief_torch",
    "adabelief_tf",
    "adabelief_jax",
)
LINKS_THAT_LOAD = {"stylesheet", "preload", "modulepreload", "icon", "preconnect", "dns-prefetch", "manifest"}
ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.I)


class Needs(HTMLParser):
    """What a page loads when it is opened (`loads`), and its anchors (`ids`)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "link" and LINKS_THAT_LOAD & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        if tag == "object":
            self.loads.append(values.get("data", ""))
        if tag != "link":
            self.loads += [values[name] for name in ("src", "poster") if name in values]
        self.loads += [source.split()[0] for source in values.get("srcset", "").split(",") if source.strip()]
        self.loads += urls(values.get("style", ""))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.loads += urls(data)


def urls(css: str) -> list[str]:
    """What a style sheet loads."""
    return re.findall(r"url\(\s*[\"']?([^\"')]+)", css) + re.findall(r"@import\s+[\"']([^\"']+)", css)


def problems(site: Path) -> Iterator[str]:
    """Each thing that a page or a style sheet of the site needs and that is elsewhere, or nowhere."""
    for file in sorted(site.rglob("*")):
        if file.suffix == ".html":
            loads = Needs(file.read_text()).loads
        elif file.suffix == ".css":
            loads = urls(file.read_text())
        else:
            continue
        for load in loads:
            path = unquote(load.partition("?")[0].partition("#")[0])
            if load.startswith("data:") or not path:
                continue
            if ELSEWHERE.match(load):
                yield f"{file.relative_to(site)} loads {load}"
            # The page that a server shows in place of a missing one has paths from the server's root.
            elif file.name != "404.html" and not (file.parent / path).exists():
                yield f"{file.relative_to(site)} loads {load}, which is not there"


def public_names(root: Path = ROOT) -> set[str]:
    """Each package's `__all__`, with the package's name, read without an import: no framework is installed here."""
    names = set()
    for package in PACKAGES:
        tree = ast.parse((root / package.replace(".", "/") / "__init__.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names |= {f"{package}.{name}" for name in ast.literal_eval(node.value)}
    return names


def undocumented(site: Path) -> set[str]:
    """Public names that no page of the API reference has."""
    anchors = set().union(*(Needs(file.read_text()).ids for file in (site / "api").glob("*.html")))
    return public_names() - anchors


if __name__ == "__main__":
    built = Path(sys.argv[1])
    found = [*problems(built), *(f"no page of the API documents {name}" for name in sorted(undocumented(built)))]
    if not (built / "search" / "search_index.js").exists():
        found.append("there is no search index for file://")
    if found:
        sys.exit("\n".join(found))
    pages = len(list(built.rglob("*.html")))
    sys.stdout.write(f"{pages} pages need nothing from elsewhere; {len(public_names())} public names are documented\n")
