"""The pages of the documentation as tests read them: code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:python|torchrun|proassist-lit) [^`]+)`")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str  # the file that it is, or changes; empty for none
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups("")) for found in _BLOCK.finditer(page.read_text("utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of a shell block, as words; continued lines are joined."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("&|;"):
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Commands in the running text; ``proassist-lit encode`` alone names a command."""
    for found in _INLINE.finditer(_FENCE.sub("", page.read_text("utf-8"))):
        for words in commands(found[1].replace("\n", " ")):
            yield [*words, "--help"] if words[0] == "proassist-lit" and len(words) == 2 else words


def all_commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every command of every page, each once."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        shell = [b.text for b in blocks(page) if b.language == "bash"]
        lines = [words for text in shell for words in commands(text)]
        for words in (*lines, *inline_commands(page)):
            found.setdefault(tuple(words), page.relative_to(ROOT).as_posix())
    return [(page, list(words)) for words, page in found.items()]


def apply_diff(text: str, diff: str, where: str) -> str:
    """``text`` with the hunks of ``diff``, each of which must fit at exactly one place."""
    for number, hunk in enumerate(re.split(r"^@@\n", diff, flags=re.MULTILINE), 1):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        fits = text.count(before)
        assert fits == 1, f"{where}: hunk {number} fits at {fits} places, not at one:\n{before}"
        text = text.replace(before, after)
    return text
