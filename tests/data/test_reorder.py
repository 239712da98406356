from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from proassist_lit.data.config import DataConfig
from proassist_lit.data.reorder import further_orders
from proassist_lit.data.sources.captaincook4d import SOURCE
from proassist_lit.data.timeline import Activity, ActivityKind, Mistake, Step, Timeline
from tests.data.captaincook4d_files import files, write


def step(number: int, start_s: float, end_s: float, *needs: int, **changes: object) -> Step:
    return Step(
        id=f"S{number}", name=f"do {number}", verb="do", item=f"{number}", start_s=start_s,
        end_s=end_s, needs=tuple(f"S{n}" for n in needs), **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def recording(*steps: Step, duration_s: float = 100.0) -> Timeline:
    activities = [
        Activity(
            kind=ActivityKind.WORK, start_s=s.start_s + 0.5, end_s=s.end_s,
            step_id=s.id, item=s.item,
        )
        for s in steps
        if s.start_s is not None and s.end_s is not None
    ]  # fmt: skip
    return Timeline(
        dataset="d", video_uid="v", task="t", duration_s=duration_s, steps=steps,
        activities=tuple(activities), scene_seed=1,
    )  # fmt: skip


SLIP = Mistake(time_s=13.0, kind="slip", description="a slip", correction="do 2")
FREE = recording(
    step(1, 2, 10), step(2, 12, 22, mistakes=(SLIP,)), step(3, 25, 26, 1), step(4, 30, 50)
)


def orders(timeline: Timeline, count: int = 40) -> set[tuple[str, ...]]:
    made = further_orders([timeline], count, seed=1)
    return {tuple(s.id for s in t.performed()) for t in made}


def test_steps_that_need_each_other_never_change_places() -> None:
    found = orders(FREE)
    assert len(found) > 6  # of 12
    assert all(order.index("S1") < order.index("S3") for order in found)
    # Done before what it needs: that stays the mistake it was.
    wrong = recording(step(1, 30, 40), step(2, 12, 22), step(3, 2, 10, 1))
    assert {order.index("S3") < order.index("S1") for order in orders(wrong)} == {True}


def test_a_step_of_unknown_needs_keeps_its_place_among_all_others() -> None:
    unknown = replace(FREE, steps=(*FREE.steps[:2], replace(FREE.steps[2], needs=None),
                                   FREE.steps[3]))  # fmt: skip
    assert orders(unknown) == {("S2", "S1", "S3", "S4")}
    nothing_known = replace(FREE, steps=tuple(replace(s, needs=None) for s in FREE.steps))
    assert further_orders([nothing_known], 5, seed=1) == []


def test_everything_of_a_step_moves_with_it_and_pauses_stay() -> None:
    made = further_orders([FREE], 20, seed=1)
    by_id = {s.id: s for s in FREE.steps}
    for timeline in made:
        performed = timeline.performed()
        starts = [s.start_s for s in performed]
        assert starts == sorted(starts)
        assert starts[0] == 2.0
        pauses = [b.start_s - a.end_s for a, b in pairwise(performed)]
        assert pauses == pytest.approx([2.0, 3.0, 4.0])
        assert timeline.duration_s == pytest.approx(100.0)
        for moved in performed:
            before = by_id[moved.id]
            assert moved.end_s - moved.start_s == pytest.approx(before.end_s - before.start_s)
            assert [m.time_s - moved.start_s for m in moved.mistakes] == pytest.approx(
                [m.time_s - before.start_s for m in before.mistakes]
            )
            (work,) = [a for a in timeline.activities if a.step_id == moved.id]
            assert work.start_s == pytest.approx(moved.start_s + 0.5)
            assert work.end_s == pytest.approx(moved.end_s)


def test_steps_that_overlap_still_begin_one_after_the_other() -> None:
    overlapping = recording(step(1, 0, 60), step(2, 5, 8), step(3, 6, 40), step(4, 70, 71))
    made = further_orders([overlapping], 20, seed=1)
    assert len(made) > 1
    for timeline in made:
        starts = [s.start_s for s in timeline.performed()]
        assert all(b - a >= 1.0 for a, b in pairwise(starts))


def test_steps_that_need_each_other_overlap_only_where_they_did() -> None:
    overlapping = recording(
        step(1, 0, 40), step(2, 10, 50), step(3, 60, 70), step(4, 71, 80, 3), step(5, 75, 90, 4)
    )
    early = False
    for timeline in further_orders([overlapping], 60, seed=1):
        spans = {s.id: (s.start_s, s.end_s) for s in timeline.steps}
        early |= spans["S4"][0] < 60
        assert spans["S4"][0] >= spans["S3"][1]
        assert spans["S5"][0] >= spans["S4"][0] + 1.0  # these two did overlap
    assert early


def test_names_scenes_and_orders_differ_and_are_the_same_again() -> None:
    skipped = Step(id="S5", name="do 5", verb="do", item="5", needs=())
    timeline = replace(FREE, steps=(*FREE.steps, skipped), metadata={"recipe": "r"})
    made = further_orders([timeline], 3, seed=1)
    assert made == further_orders([timeline], 3, seed=1)
    assert made != further_orders([timeline], 3, seed=2)
    assert [t.video_uid for t in made] == ["v_order1", "v_order2", "v_order3"]
    assert len({t.scene_seed for t in made} | {timeline.scene_seed}) == 4
    assert all(t.metadata == {"recipe": "r", "order_of": "v"} for t in made)
    assert all(t.steps[4] == skipped for t in made)
    assert [Timeline.from_json(t.to_json()) for t in made] == made


def test_only_train_has_other_orders(tmp_path: Path) -> None:
    content = files()
    content["task_graphs/hotsoup.json"]["edges"] = [["0", "3"]]  # nothing needs anything
    config = DataConfig(source="captaincook4d", root=str(write(tmp_path, content)), other_orders=4)
    made = SOURCE.timelines(config)
    real = SOURCE.timelines(replace(config, other_orders=0))
    assert made["val"] == real["val"]
    assert made["train"][:1] == real["train"]
    assert [t.metadata["order_of"] for t in made["train"][1:]] == ["1_1"] * (len(made["train"]) - 1)
    assert len(made["train"]) > 2
    assert SOURCE.settings(config) != SOURCE.settings(replace(config, other_orders=3))
    assert "other_orders" not in SOURCE.settings(replace(config, other_orders=0))
