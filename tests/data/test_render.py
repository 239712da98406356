from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from proassist_lit.data.appearance import HUES, ITEMS, SHAPES, TOOLS, appearance, shape_mask
from proassist_lit.data.dialogue import write_dialogue
from proassist_lit.data.dialogue_config import DialogueConfig, UserType
from proassist_lit.data.render import FRAME_SIZE, Renderer
from proassist_lit.data.seeding import stable_rng, stable_seed
from proassist_lit.data.sources.toy import ToyConfig, make_toy
from proassist_lit.data.timeline import Activity, ActivityKind, Step, Timeline

# A thing and its look-alike, whatever they are called.
THING = next(name for name, look in ITEMS.items() if look == ("green", "pillar"))
ALIKE = next(name for name, look in ITEMS.items() if look == ("green", "diamond"))
OTHERS = [name for name, (color, _) in ITEMS.items() if color in ("purple", "blue")][:2]
BOARD = np.s_[17:45, 13:47]


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return make_toy(ToyConfig(num_train=3, num_val=1, num_test=1))["train"][2]


def work(**changes) -> Timeline:
    """One step, worked on from 4 s to 12 s with a pause from 6 s to 8 s."""
    kind = ActivityKind.WORK
    activities = (
        Activity(kind=kind, start_s=4.0, end_s=6.0, step_id="S1", item=THING, tool="knife",
                 progress=(0.02, 0.5)),
        Activity(kind=kind, start_s=6.0, end_s=8.0, step_id="S1", item=THING, progress=(0.5, 0.5)),
        Activity(kind=kind, start_s=8.0, end_s=12.0, step_id="S1", item=THING, tool="knife",
                 progress=(0.5, 1.0)),
    )  # fmt: skip
    step = Step(id="S1", name="slice it", verb="slice", item=THING, tool="knife",
                start_s=4.0, end_s=12.0)  # fmt: skip
    base = Timeline(
        dataset="toy", video_uid="v", task="make a soup", duration_s=20.0, steps=(step,),
        activities=activities, scene_seed=5, metadata={"shelf": [THING, *OTHERS]},
    )  # fmt: skip
    return replace(base, **changes)


def frame(timeline: Timeline, time_s: float) -> np.ndarray:
    return Renderer(timeline).frame(round(time_s * 2), 2.0)


def far(one: np.ndarray, two: np.ndarray) -> float:
    """Share of pixels that differ by more than noise."""
    return float((np.abs(one.astype(int) - two).max(-1) > 70).mean())


def test_frames_are_pictures_and_always_the_same(timeline: Timeline) -> None:
    frames = Renderer(timeline).frames(10, 16, 2.0)

    assert frames.shape == (6, FRAME_SIZE, FRAME_SIZE, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames[3], Renderer(timeline).frame(13, 2.0))


def test_dialogues_over_one_timeline_share_byte_identical_frames(timeline: Timeline) -> None:
    before = Renderer(timeline).frames(0, 40, 2.0).tobytes()
    renderer = Renderer(timeline)
    for user_type in UserType:
        for seed in (1, 2):
            for config in (DialogueConfig(), DialogueConfig(knowledge=True, steps=False)):
                write_dialogue(timeline, config, user_type, seed=seed)
                assert renderer.frames(0, 40, 2.0).tobytes() == before


def test_names_of_the_dialogue_change_no_pixel(timeline: Timeline) -> None:
    steps = tuple(
        replace(s, name=f"x {s.name}", verb="x", tool="x", mistakes=()) for s in timeline.steps
    )
    other = replace(
        timeline, steps=steps, task="x", video_uid="x", dataset="x",
        metadata={**timeline.metadata, "family": "x", "composition": []},
    )  # fmt: skip

    num_frames = int(timeline.duration_s * 2)
    indices = range(0, num_frames, 5)
    one, two = Renderer(timeline), Renderer(other)
    assert all(np.array_equal(one.frame(i, 2.0), two.frame(i, 2.0)) for i in indices)


def test_what_happens_can_be_seen() -> None:
    timeline = work()
    before, working, late, done = (frame(timeline, t)[BOARD] for t in (2.0, 5.0, 11.0, 12.5))

    assert far(before, working) > 0.2
    assert far(working, late) > 0.05  # the work covers more and more
    assert far(late, done) > 0.05  # the rim of what is finished
    assert far(before, frame(timeline, 3.0)[BOARD]) < 0.02


def test_what_is_done_can_be_seen_where_object_and_tool_leave_it_open() -> None:
    def doing(verb: str) -> np.ndarray:
        plain = work()
        return frame(
            replace(plain, activities=tuple(replace(a, verb=verb) for a in plain.activities)), 5.0
        )

    sign = np.s_[16:27, 51:62]
    peel, rinse, nothing = doing("peel"), doing("rinse"), doing("")
    assert far(peel[sign], rinse[sign]) > 0.2
    assert far(peel[sign], nothing[sign]) > 0.2
    assert np.array_equal(frame(work(), 5.0), nothing)
    for picture in (peel, rinse):  # and nothing else tells
        picture[sign] = nothing[sign]
        assert np.array_equal(picture, nothing)


def test_tool_and_hand_are_away_in_a_pause() -> None:
    knife = np.array(HUES[TOOLS["knife"][0]])
    thing = np.array(HUES[ITEMS[THING][0]])

    def share(time_s: float, color: np.ndarray) -> float:
        board = frame(work(), time_s)[BOARD].astype(int)
        return float((np.abs(board - color).max(-1) < 34).mean())

    assert share(5.0, knife) > share(7.0, knife) + 0.02
    assert share(7.0, thing) > 0.1  # the object stays


def test_another_object_looks_different_even_where_it_is_a_look_alike() -> None:
    activities = tuple(replace(a, item=ALIKE) for a in work().activities)

    other = work(activities=activities)

    assert far(frame(work(), 5.0)[BOARD], frame(other, 5.0)[BOARD]) > 0.05


def test_finished_objects_go_to_the_tray() -> None:
    tray = np.s_[52:, :12]

    assert far(frame(work(), 13.0)[tray], frame(work(), 15.0)[tray]) > 0.1


def test_object_in_the_hands_is_missing_from_the_shelf() -> None:
    shelf = np.s_[:12, :]

    assert far(frame(work(), 2.0)[shelf], frame(work(), 5.0)[shelf]) > 0.02


def test_scene_seed_changes_what_carries_no_meaning() -> None:
    one, two = frame(work(), 2.0), frame(work(scene_seed=6), 2.0)

    assert not np.array_equal(one, two)


def test_stranger_walks_through_the_picture() -> None:
    stranger = Activity(kind=ActivityKind.DISTRACTION, start_s=0.0, end_s=3.0)
    crowded = work(activities=(stranger, *work().activities))

    assert any(far(frame(work(), t), frame(crowded, t)) > 0.005 for t in (1.0, 1.5, 2.0))
    assert np.array_equal(frame(work(), 3.5), frame(crowded, 3.5))


def test_of_stretches_that_overlap_the_last_begun_is_seen() -> None:
    long = Activity(kind=ActivityKind.WORK, start_s=1.0, end_s=18.0, step_id="S1", item=OTHERS[0],
                    tool="pan", progress=(0.0, 0.1))  # fmt: skip
    both = work(activities=(long, *work().activities))

    assert np.array_equal(frame(both, 5.0)[BOARD], frame(work(), 5.0)[BOARD])
    assert far(frame(both, 16.0)[BOARD], frame(work(), 16.0)[BOARD]) > 0.1  # the long one again


def test_items_and_tools_have_known_looks_of_their_own() -> None:
    for table in (ITEMS, TOOLS):
        assert len(set(table.values())) == len(table)
    for color, shape in [*ITEMS.values(), *TOOLS.values()]:
        assert color in HUES
        assert shape in SHAPES
    for shape in SHAPES:
        mask = shape_mask(shape, 28)
        assert mask.shape == (28, 28)
        assert 0.1 < mask.mean() < 0.95


def test_an_unknown_name_always_has_the_same_invented_look() -> None:
    look = appearance("saffron risotto")
    appearance.cache_clear()

    assert appearance("saffron risotto") == look
    assert appearance("saffron rice") != look


def test_seeds_are_the_same_in_every_process() -> None:
    assert stable_seed("a", 1) == 4665976284724862560
    assert stable_seed("a", 1) != stable_seed("a1")
    assert stable_seed("ab", "c") != stable_seed("a", "bc")
    assert stable_rng("a", 1).integers(1000) == stable_rng("a", 1).integers(1000)
