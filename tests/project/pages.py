"""The fenced blocks of a Markdown page, and what must be true of each language."""

import ast
import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^ *```$", re.M | re.S
)
SHELL = ("", "sh", "bash", "console")
COMMANDS = re.compile(r"^(\$ )?(pip|nox|python|adabelief|bash) ", re.M)
ELSEWHERE = {"nox", "adabelief", "adabelief-tf"}
"""What pages install or remove that pyproject.toml does not list."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int
    """Of its first line in the page, counted from 1."""
    title: str | None = None
    """A file of this name is made of it, for the blocks that follow."""


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page's text.

    Raises:
        ValueError: A fence that the pattern does not read, such as one with other attributes.
    """
    found = [
        Block(match["language"], match["text"], page[: match.start("text")].count("\n") + 1, match["title"])
        for match in FENCE.finditer(page)
    ]
    if (fences := len(re.findall(r"^\s*(?:```|~~~)", page, re.M))) != 2 * len(found):
        raise ValueError(f"{fences} lines that begin with a fence, but {len(found)} blocks were read")
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block, without comments and variables set for one command."""
    lines = text.replace("\\\n", " ").replace("&&", "\n").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            found.append(words)
    return found


def check_static(block: Block) -> None:
    """What can be said of a block without running it.

    Raises:
        AssertionError, ValueError: The language is unknown, the text is not of that language, or a command names
            what is not there.
    """
    if block.language in SHELL:
        for words in commands(block.text):
            check_command(words)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "text":
        assert not COMMANDS.search(block.text), "a command in a block that nothing runs"
    else:
        assert block.language == "python", f"no test knows the language {block.language!r}"
        ast.parse(block.text)


def check_command(words: list[str]) -> None:
    """A command's packages, extras, sessions, files and options exist.

    Raises:
        AssertionError: One does not, or the program is unknown.
    """
    program, arguments = words[0], words[1:]
    if program == "pip":
        assert arguments[0] in ("install", "uninstall"), arguments[0]
        for argument in arguments[1:]:
            check_requirement(argument)
    elif program == "nox":
        names = arguments[1:] if arguments and arguments[0] in ("-s", "--session") else []
        names = names[: names.index("--")] if "--" in names else names
        assert names or not arguments, arguments
        assert set(names) <= sessions(), set(names) - sessions()
    elif program == "bash":
        assert (ROOT / arguments[0]).is_file(), arguments[0]
    elif program == "python":
        check_script(arguments)
    else:
        assert program == "adabelief", f"no test knows the command {program!r}"  # these are run


def check_requirement(requirement: str) -> None:
    name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?(?:[=<>].*)?", requirement).groups()
    groups = [*PROJECT["project"]["optional-dependencies"].values(), *PROJECT["dependency-groups"].values()]
    known = {re.match(r"[\w.-]+", line)[0] for group in groups for line in group} | ELSEWHERE
    assert name in known, name
    if extras:
        assert name == "adabelief"
        assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys(), extras


def sessions() -> set[str]:
    """The names of the sessions in noxfile.py."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(d).startswith("nox.session") for d in node.decorator_list)
    }


def check_script(arguments: list[str]) -> None:
    """`python FILE …` or `python -m MODULE …`: the file is there, and its folder names the options."""
    if arguments[0] == "-m":
        module = ROOT / arguments[1].replace(".", "/")
        file = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__main__.py"
    else:
        file = ROOT / arguments[0]
    assert file.is_file(), arguments[0]
    folders = {file.parent, ROOT / "examples" / "harness"} if "examples" in file.parts else {file.parent}
    source = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        assert f'"{option}"' in source, option
