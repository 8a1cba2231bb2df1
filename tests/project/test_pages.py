"""Every block of the README and the documentation runs or is checked; none is of a language that is unknown here."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from pages import PAGES, ROOT, Block, blocks, check_static

BLOCKS = {page: blocks(page.read_text()) for page in PAGES}


def name(page):
    return str(page.relative_to(ROOT))


def run(page, found, folder):
    request = json.dumps({"page": page, "blocks": [asdict(block) for block in found]})
    runner = Path(__file__).parent / "run_page.py"
    return subprocess.run([sys.executable, runner, request], cwd=folder, capture_output=True, text=True, check=False)


def frameworks(block):
    """Those that a Python block imports; () for others, which no framework minds."""
    return tuple(re.findall(r"^(?:from|import) (?:adabelief_)?(torch|keras|tf|jax)\b", block.text, re.MULTILINE))


def groups(found):
    """The blocks in runs that one process can do: TensorFlow and PyTorch may abort a process that has both."""
    return [list(group) for _, group in groupby(found, lambda block: {*frameworks(block)} - {"tf"})]


@pytest.mark.parametrize("page", [page for page, found in BLOCKS.items() if found], ids=name)
def test_the_blocks_of_the_page_run(page, tmp_path):
    for block in BLOCKS[page]:
        check_static(block)
    for framework in ("torch", "keras", "jax"):
        if find_spec(framework) is None and any(framework in frameworks(block) for block in BLOCKS[page]):
            pytest.skip(f"{framework} is not installed")
    for group in groups(BLOCKS[page]):
        done = run(name(page), group, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""


def test_there_are_blocks_for_all_four():
    text = "\n".join(block.text for found in BLOCKS.values() for block in found if block.language == "python")
    for package in ("adabelief_core", "adabelief_torch", "adabelief_tf", "adabelief_jax"):
        assert f"from {package} import" in text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_code_is_indented_in_place_of_a_fence(page):
    outside = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)
    paragraphs = outside.split("\n\n")
    for before, paragraph in pairwise(paragraphs):
        if paragraph.startswith("    "):
            assert re.match(r"\n* *([-*]|\d+\.) |    ", before), paragraph


# These checks can fail

BAD = [
    ("ruby", "puts 1\n"),
    ("python", "import\n"),
    ("json", "{1: 2}\n"),
    ("toml", "a = \n"),
    ("text", "pip install adabelief\n"),
    ("", "m ← β1 m\n"),
    ("sh", "pip install 'adabelief[pytorch]'\n"),
    ("sh", "pip install no-such-package\n"),
    ("sh", "nox -s demo no_such_session\n"),
    ("sh", "python -m examples.no_such_module\n"),
    ("sh", "python benchmarks/run.py --no-such-option\n"),
    ("sh", "bash .ci/no_such_file\n"),
    ("console", "$ rm -r /\n"),
]


@pytest.mark.parametrize(("language", "text"), BAD)
def test_a_block_that_is_wrong_is_refused(language, text):
    (block,) = blocks(f"Text\n\n```{language}\n{text}```\n")
    with pytest.raises((AssertionError, ValueError, SyntaxError)):
        check_static(block)


def test_a_fence_that_cannot_be_read_is_refused():
    for page in ("```python hl_lines=1\nx\n```\n", "~~~\nx\n~~~\n", "```sh\nx\n"):
        with pytest.raises(ValueError, match="blocks were read"):
            blocks(page)


def test_a_block_that_fails_is_seen_with_its_line(tmp_path):
    found = blocks("Text\n\n```python\nx = 1\nassert x == 2\n```\n")
    done = run("page.md", found, tmp_path)
    assert done.returncode == 1
    assert 'File "page.md", line 5' in done.stderr


def test_a_command_that_fails_is_seen(tmp_path):
    done = run("page.md", blocks("```sh\nadabelief inspect missing.safetensors\n```\n"), tmp_path)
    assert done.returncode == 1
    assert "page.md:2: " in done.stderr
    assert "missing.safetensors" in done.stderr


def test_blocks_share_the_folder_and_no_names(tmp_path):
    page = '```python title="one.py"\nx = 1\n```\n```python\nfrom one import x\nassert "y" not in globals()\n```\n'
    assert [block.title for block in blocks(page)] == ["one.py", None]
    assert run("page.md", [Block("python", "y = 1\n", 1), *blocks(page)], tmp_path).returncode == 0


def test_a_process_for_each_framework():
    page = "".join(f"```python\nimport {name}\n```\n" for name in ("torch", "torch", "keras", "numpy", "keras"))
    assert [len(group) for group in groups(blocks(page))] == [2, 1, 1, 1]
