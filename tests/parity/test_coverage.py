"""Every family of the reference's numbers is either checked or named as pending, with a reason."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.parity.numbers import PARITY

ABOUT = {"versions", "seed_base", "dtype", "attention", "random_stream_stats", "margins_required"}
"""Sections that say how the numbers were made."""

COVERED = {
    "chat_and_masks.json": {
        "cases": "test_chat.py",
        "batches": "test_chat.py",
        "nfs_table": "test_chat.py",
    },
    "losses.json": {
        "models": "test_losses.py",
        "batches": "test_losses.py",
        "cases": "test_losses.py",
    },
    "dst.json": {
        "tokenizer": "test_dst.py",
        "sequences": "test_dst.py",
        "collated": "dst_numbers.py",
        "models": "test_dst_losses.py",
        "loss_cases": "test_dst_losses.py",
    },
    "matching.json": {
        "texts": "test_matching.py",
        "vectors_file": "test_matching.py",
        "windows": "test_matching.py",
        "streams": "test_matching.py",
        "edge_streams": "test_matching.py",
        "cost_matrices": "test_matching.py",
        "aggregates": "test_matching.py",
        "nlg": "test_text.py",
    },
    "known_reference_bugs.json": {
        "chat": "test_chat.py",
        "losses": "test_losses.py",
        "dst": "test_dst.py",
        "matching": "test_matching.py",
        "streaming": "test_known_faults.py",
        "streaming_quirks": "test_known_faults.py",
    },
    "streaming.json": {
        "models": "streams.py",
        "videos": "streams.py",
        "runs": "streams.py",
    },
}
"""Which file of this folder reads which section of which file of numbers."""

PENDING: dict[tuple[str, str], str] = {}
"""Sections that no test reads yet: (file, section) and the reason."""

MISSING = not PARITY.is_dir()
pytestmark = pytest.mark.skipif(
    MISSING, reason=f"no parity numbers in {PARITY}; set PROASSIST_PARITY_DIR"
)


def sections() -> list[tuple[str, str]]:
    return [
        (path.name, section)
        for path in sorted(PARITY.glob("*.json"))
        for section in json.loads(path.read_text())
        if section not in ABOUT
    ]


@pytest.mark.parametrize(("file", "section"), [] if MISSING else sections())
def test_every_family_is_checked_or_pending(file: str, section: str) -> None:
    by = COVERED.get(file, {}).get(section)

    assert by or (file, section) in PENDING, (
        f"{PARITY / file} holds {section!r}, which no test reads; write one, or name it in PENDING"
    )
    assert not (by and (file, section) in PENDING), f"{file}: {section} is pending and covered"


def strings(source: str) -> set[str]:
    """The string constants of a file, docstrings and other remarks apart."""
    nodes = list(ast.walk(ast.parse(source)))
    remarks = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in remarks
    }


def test_the_files_of_tests_read_what_they_are_said_to() -> None:
    here = Path(__file__).parent
    for file, covered in COVERED.items():
        for section, by in covered.items():
            found = strings((here / by).read_text())
            assert file in found, f"{by} does not read {file}"
            assert section in found, f"{by} does not read {section!r} of {file}"


def test_what_is_said_of_a_section_does_not_read_it() -> None:
    source = '''
"""Of the "streams"."""
def test():
    """Of the "windows"."""
    return numbers["texts"]  # and not its "vectors"
TABLE = 1
"""Without "nlg".""" '''
    assert strings(source) == {"texts"}
