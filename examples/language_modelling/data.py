"""Text as token ids: the standard library's own sources by characters, or Penn Treebank by words."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from examples.harness import DataError

# Modules that have been single files of some length from Python 3.11 on, so that versions differ in few lines.
MODULES = (
    "argparse",
    "ast",
    "calendar",
    "configparser",
    "difflib",
    "fractions",
    "heapq",
    "inspect",
    "random",
    "shutil",
    "statistics",
    "tarfile",
    "textwrap",
    "threading",
    "typing",
)
CHARACTERS = 4000  # of each module
PENN_TREEBANK = ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")


@dataclass(frozen=True)
class Text:
    """One text in three parts.

    Attributes:
        train, validation, test: token ids, int64, shape (tokens,).
        vocabulary: the token of each id, sorted; no part has another.
        sha256: hexadecimal digest of the three parts as UTF-8, a zero byte after each.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    vocabulary: tuple[str, ...]
    sha256: str

    @classmethod
    def of(cls, train: Sequence[str], validation: Sequence[str], test: Sequence[str], joined_by: str = "") -> Text:
        """Number the tokens of three parts.

        >>> Text.of("abba", "a", "bc").train.tolist()
        [0, 1, 1, 0]
        """
        parts = (train, validation, test)
        vocabulary = tuple(sorted(set().union(*parts)))
        number = {token: i for i, token in enumerate(vocabulary)}
        digest = hashlib.sha256(b"".join(joined_by.join(part).encode() + b"\0" for part in parts)).hexdigest()
        ids = (torch.tensor([number[token] for token in part]) for part in parts)
        return cls(*ids, vocabulary, digest)


@cache
def standard_library() -> Text:
    """The first CHARACTERS characters of each of MODULES as this Python has them; tokens are characters.

    Of each file the first 80 % are for training, the next 10 % for validation, the last 10 % for the test. The text
    differs a little between versions of Python, and figures with it: `sha256` says which text it was.

    Raises:
        FileNotFoundError: this Python has no sources (some embedded ones).
    """
    folder = Path(sysconfig.get_path("stdlib"))
    texts = [(folder / f"{name}.py").read_text(encoding="utf-8")[:CHARACTERS] for name in MODULES]
    cuts = [(len(text) * 8 // 10, len(text) * 9 // 10) for text in texts]
    return Text.of(
        "".join(text[:a] for text, (a, _) in zip(texts, cuts, strict=True)),
        "".join(text[a:b] for text, (a, b) in zip(texts, cuts, strict=True)),
        "".join(text[b:] for text, (_, b) in zip(texts, cuts, strict=True)),
    )


@cache
def penn_treebank(folder: Path) -> Text:
    """Penn Treebank as Mikolov prepared it (10,000 words), from a local folder; tokens are words.

    Args:
        folder: holds ptb.train.txt, ptb.valid.txt and ptb.test.txt. Every line ends with the token <eos>.

    Raises:
        DataError: A file is missing.
    """
    missing = [name for name in PENN_TREEBANK if not (folder / name).is_file()]
    if missing:
        expected = f"expected a folder with {', '.join(PENN_TREEBANK)}; missing: {', '.join(missing)}"
        raise DataError(f"Invalid --data: {folder} ({expected})")
    return Text.of(
        *((folder / name).read_text("utf-8").replace("\n", " <eos> ").split() for name in PENN_TREEBANK), " "
    )


def provenance() -> dict[str, str]:
    """What the default text depends on, for the record of its runs."""
    return {"python": platform.python_version(), "stdlib_sha256": standard_library().sha256}


def columns(tokens: Tensor, batch: int) -> Tensor:
    """The text as `batch` columns that are read side by side, shape (len(tokens) // batch, batch); the rest is cut.

    >>> columns(torch.arange(7), 2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    rows = len(tokens) // batch
    return tokens[: rows * batch].view(batch, rows).T.contiguous()
