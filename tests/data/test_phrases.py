from __future__ import annotations

import string

import numpy as np
import pytest

from proassist_lit.data import phrases

FIELDS = {
    "GOAL": {"task"},
    "FIRST": {"step"},
    "NEXT": {"step", "done"},
    "GO_ON": {"done"},
    "CORRECT": {"wrong", "right"},
    "SKIPPED": {"step"},
    "ANSWER_TOOL": {"tool"},
    "ANSWER_ITEM": {"item"},
    "ANSWER_COUNT": {"count", "total"},
    "FINISH": set(),
    "REMARKS": set(),
    "ASK_TOOL": set(),
    "ASK_ITEM": set(),
    "ASK_COUNT": set(),
    "SYSTEM_PROMPTS": set(),
}
OPTIONAL = {"FIRST": {"id"}, "NEXT": {"id"}, "FINISH": {"task"}}
FREQUENT = {"GOAL", "FIRST", "NEXT", "FINISH", "CORRECT", "REMARKS"}


@pytest.mark.parametrize("table", sorted(FIELDS))
def test_wordings_are_many_different_and_hold_their_fields(table: str) -> None:
    wordings = getattr(phrases, table)

    assert len(set(wordings)) == len(wordings)
    assert len(wordings) >= (12 if table in FREQUENT else 6 if table == "SYSTEM_PROMPTS" else 8)
    for wording in wordings:
        fields = {name for _, name, _, _ in string.Formatter().parse(wording) if name}
        assert FIELDS[table] <= fields <= FIELDS[table] | OPTIONAL.get(table, set()), wording


def test_every_table_of_wordings_is_checked() -> None:
    assert {name for name in vars(phrases) if name.isupper()} == set(FIELDS)


def test_every_wording_of_a_table_is_picked_and_a_seed_repeats_it() -> None:
    picked = [phrases.pick(phrases.GOAL, np.random.default_rng(seed)) for seed in range(200)]

    assert set(picked) == set(phrases.GOAL)
    assert phrases.pick(phrases.GOAL, np.random.default_rng(7)) == picked[7]
