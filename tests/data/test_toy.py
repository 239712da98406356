from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from proassist_lit.data.appearance import ITEMS, TOOLS
from proassist_lit.data.sources.toy import (
    FAMILIES,
    VERB_TOOLS,
    ToyConfig,
    compositions,
    make_toy,
)
from proassist_lit.data.timeline import ActivityKind, Timeline
from proassist_lit.errors import ConfigError
from proassist_lit.types import SPLITS

SIZES = {"num_train": 56, "num_val": 14, "num_test": 14}
WORK = (ActivityKind.WORK, ActivityKind.MISTAKE, ActivityKind.UNDO, ActivityKind.FALSE_START)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Timeline]]:
    return make_toy(ToyConfig(**SIZES))


@pytest.fixture(scope="module")
def timelines(splits: dict[str, list[Timeline]]) -> list[Timeline]:
    return [timeline for split in SPLITS for timeline in splits[split]]


def test_same_seed_gives_the_same_recordings(splits: dict[str, list[Timeline]]) -> None:
    assert make_toy(ToyConfig(**SIZES)) == splits
    other = make_toy(ToyConfig(**SIZES, seed=2))
    assert [t.steps for t in other["val"]] != [t.steps for t in splits["val"]]
    assert {t.scene_seed for t in other["val"]}.isdisjoint(t.scene_seed for t in splits["val"])


def test_size_of_a_split_changes_no_recording(splits: dict[str, list[Timeline]]) -> None:
    smaller = make_toy(ToyConfig(num_train=3, num_val=14, num_test=2))

    assert smaller["val"] == splits["val"]
    assert smaller["train"] == splits["train"][:3]


def test_at_least_twelve_families_and_all_in_every_split(
    splits: dict[str, list[Timeline]],
) -> None:
    assert len({family.product for family in FAMILIES}) >= 12
    for split in SPLITS:
        assert {t.metadata["family"] for t in splits[split]} == {f.product for f in FAMILIES}


def test_compositions_of_splits_are_disjoint(splits: dict[str, list[Timeline]]) -> None:
    for family in FAMILIES:
        by_split = compositions(family)
        sets = [set(by_split[split]) for split in SPLITS]
        assert all(sets)
        assert not sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2], family.product
        for split in SPLITS:
            made = {
                tuple(t.metadata["composition"])
                for t in splits[split]
                if t.metadata["family"] == family.product
            }
            assert made <= set(by_split[split])


def test_names_are_known_and_tools_fit(timelines: list[Timeline]) -> None:
    for family in FAMILIES:
        assert set(family.items) <= set(ITEMS)
        assert {slot for _, slot in family.steps} <= {0, 1, 2}
        assert len(set(family.steps)) == len(family.steps)
    assert set().union(*VERB_TOOLS.values()) <= set(TOOLS)
    for timeline in timelines:
        for step in timeline.steps:
            assert step.tool in VERB_TOOLS[step.verb]
            assert {step.verb, step.item, step.tool} <= set(step.name.split())


def test_everything_that_makes_timing_hard_occurs(timelines: list[Timeline]) -> None:
    kinds = Counter(a.kind for t in timelines for a in t.activities)
    pauses = [
        a
        for t in timelines
        for a in t.activities
        if a.kind is ActivityKind.WORK and a.progress[0] == a.progress[1]
    ]
    mistakes = Counter(m.kind for t in timelines for s in t.steps for m in s.mistakes)
    num_steps = sum(len(t.steps) for t in timelines)

    assert kinds[ActivityKind.FALSE_START] > 0.1 * num_steps
    assert kinds[ActivityKind.MISTAKE] == kinds[ActivityKind.UNDO] == sum(mistakes.values())
    assert kinds[ActivityKind.MISTAKE] > 0.1 * num_steps
    assert min(mistakes["wrong_item"], mistakes["wrong_tool"]) > 0.02 * num_steps
    assert kinds[ActivityKind.DISTRACTION] > len(timelines)
    assert len(pauses) > 0.2 * num_steps
    assert not any(p.tool for p in pauses)  # the tool is away in a pause


def test_rates_of_zero_switch_everything_off() -> None:
    config = ToyConfig(
        num_train=4, num_val=1, num_test=1, mistake_rate=0.0, false_start_rate=0.0,
        pause_rate=0.0, distraction_rate=0.0,
    )  # fmt: skip
    for timeline in make_toy(config)["train"]:
        assert {a.kind for a in timeline.activities} == {ActivityKind.WORK}
        assert len(timeline.activities) == len(timeline.steps)


def test_lengths_of_steps_vary_threefold(timelines: list[Timeline]) -> None:
    lengths = [s.end_s - s.start_s for t in timelines for s in t.steps]
    low, high = np.percentile(lengths, [10, 90])

    assert high / low >= 3


def test_work_of_a_step_fills_it_and_nothing_overlaps(timelines: list[Timeline]) -> None:
    for timeline in timelines:
        hands = [a for a in timeline.activities if a.kind in WORK]
        for one, following in pairwise(hands):
            assert one.end_s <= following.start_s + 1e-9
        for step in timeline.steps:
            work = [a for a in hands if a.step_id == step.id and a.kind is ActivityKind.WORK]
            assert work[0].start_s == step.start_s
            assert work[-1].end_s == pytest.approx(step.end_s)
            assert work[-1].progress[1] == 1.0
            assert {a.item for a in work} == {step.item}
        assert [s.start_s for s in timeline.steps] == sorted(s.start_s for s in timeline.steps)
        assert timeline.steps[-1].end_s < timeline.duration_s


def test_mistakes_are_what_the_hands_do(timelines: list[Timeline]) -> None:
    for timeline in timelines:
        wrong = [a for a in timeline.activities if a.kind is ActivityKind.MISTAKE]
        told = [(step, m) for step in timeline.steps for m in step.mistakes]
        assert len(wrong) == len(told)
        for activity, (step, mistake) in zip(wrong, told, strict=True):
            assert activity.start_s == mistake.time_s < step.start_s
            differs = activity.item if mistake.kind == "wrong_item" else activity.tool
            right = step.item if mistake.kind == "wrong_item" else step.tool
            assert differs != right
            assert differs in mistake.description
            assert right in mistake.correction
            assert mistake.keywords == (right,)


def test_timeline_survives_json(timelines: list[Timeline]) -> None:
    for timeline in timelines[:10]:
        assert Timeline.from_json(timeline.to_json()) == timeline


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_val": 0}, r"data\.toy\.num_val must be at least 1, got 0"),
        ({"mistake_rate": 1.5}, r"data\.toy\.mistake_rate must be in \[0, 1\], got 1\.5"),
        ({"distraction_rate": -1.0}, r"data\.toy\.distraction_rate must be >= 0"),
    ],
)
def test_toy_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ToyConfig(**setting)
