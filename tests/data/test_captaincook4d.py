"""Recordings of CaptainCook4D become timelines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proassist_lit.data.config import DataConfig
from proassist_lit.data.generate import generated_folder
from proassist_lit.data.sources.captaincook4d import read_captaincook4d
from proassist_lit.data.timeline import ActivityKind, Timeline
from tests.data.captaincook4d_files import ERRORS, GRAPH, SPLIT, STEPS, VIDEOS, files, write

DATA_DIR = (
    Path(os.environ.get("PROASSIST_DATA_DIR", Path(__file__).parents[3] / "shared/data"))
    / "captaincook4d"
)


def test_steps_follow_the_task_graph(tmp_path: Path) -> None:
    made = read_captaincook4d(write(tmp_path, files()))
    assert {split: [t.video_uid for t in v] for split, v in made.items()} == {
        "train": ["1_1"],
        "val": ["1_2"],
    }
    one, two = made["train"][0], made["val"][0]
    assert [(s.id, s.name) for s in one.steps] == [
        ("S1", "peel 1 carrot"),
        ("S2", "cut the carrot with a knife"),
        ("S3", "stir the soup"),
        ("S4", "add 1/2 tsp salt to the pan"),
        ("S5", "stir the soup"),
    ]
    assert [(s.id, s.name) for s in two.steps] == [(s.id, s.name) for s in one.steps]
    assert [(s.start_s, s.end_s) for s in one.steps] == [
        (2.0, 10.0),
        (12.0, 22.0),
        (24.0, 28.0),
        (26.0, 30.0),
        (40.0, 50.0),
    ]
    assert (one.dataset, one.task) == ("captaincook4d", "make hot soup")
    assert one.steps[1].verb == "cut"
    assert one.steps[1].item == "carrot"
    assert one.steps[1].tool == "knife"
    assert one.metadata["person_id"] == 3


def test_skipped_and_repeated_steps(tmp_path: Path) -> None:
    two = read_captaincook4d(write(tmp_path, files()))["val"][0]
    salt, first, second = two.steps[3], two.steps[2], two.steps[4]
    assert salt.skipped
    assert salt.mistakes == ()
    assert (first.start_s, first.end_s) == (20.0, 22.0)
    assert (second.start_s, second.end_s) == (24.0, 30.0)  # stirred three times, planned twice
    stirs = [a for a in two.activities if a.step_id == "S5"]
    assert [(a.start_s, a.end_s, a.progress) for a in stirs] == [
        (24.0, 26.0, (0.0, 0.5)),
        (28.0, 30.0, (0.5, 1.0)),
    ]
    assert not [a for a in two.activities if a.step_id == "S4"]


def test_duration_is_the_table_s_or_follows_the_last_step(tmp_path: Path) -> None:
    content = files()
    made = read_captaincook4d(write(tmp_path, content))
    assert made["train"][0].duration_s == 60.0
    assert made["val"][0].duration_s == 35.0
    content[VIDEOS] += "1_2,2,0.5,29.99\n"  # the table rounds: the last step ends at 30
    assert read_captaincook4d(write(tmp_path, content))["val"][0].duration_s == 30.0


def test_mistakes_have_time_words_and_correction(tmp_path: Path) -> None:
    made = read_captaincook4d(write(tmp_path, files()))
    one, two = made["train"][0], made["val"][0]
    (cut,) = one.steps[1].mistakes
    assert (cut.time_s, cut.kind) == (17.0, "Technique Error")
    assert cut.description == "a technique error: cut in uneven pieces"
    assert cut.correction == "cut the carrot with a knife"
    assert cut.keywords == ("cut", "carrot")
    (stir,) = one.steps[4].mistakes
    assert (stir.time_s, stir.kind) == (49.0, "Timing Error")
    order, other = two.steps[1].mistakes
    assert (order.time_s, order.kind) == (2.0, "Order Error")
    assert order.description == "an order error: step performed before peeling"
    assert order.correction == "first peel 1 carrot"  # what the graph wants before
    assert order.keywords == ("peel", "carrot")
    assert (other.time_s, other.description) == (6.0, "a mistake: odd")


@pytest.mark.parametrize(
    ("text", "correction"),
    [
        ("Step performed before adding salt", "finish adding salt before you peel 1 carrot"),
        ("step performed after cutting.", "peel 1 carrot before cutting"),
        ("wrong order", "peel 1 carrot"),
    ],
)
def test_order_error_without_a_missing_step_says_it_in_words(
    text: str, correction: str, tmp_path: Path
) -> None:
    content = files()
    row = content[ERRORS][0]["step_annotations"][0]
    row["errors"] = [{"tag": "Order Error", "description": text}]
    (mistake,) = read_captaincook4d(write(tmp_path, content))["train"][0].steps[0].mistakes
    assert mistake.correction == correction
    assert mistake.keywords == ("peel", "carrot")


def test_activities_are_work_interrupted_by_mistakes(tmp_path: Path) -> None:
    made = read_captaincook4d(write(tmp_path, files()))
    work, mistake = ActivityKind.WORK, ActivityKind.MISTAKE

    def of(timeline: Timeline, step_id: str) -> list:
        acts = [a for a in timeline.activities if a.step_id == step_id]
        return [(a.kind, a.start_s, a.end_s, *(round(p, 6) for p in a.progress)) for a in acts]

    one, two = made["train"][0], made["val"][0]
    assert of(one, "S1") == [(work, 2.0, 10.0, 0.0, 1.0)]
    assert of(one, "S2") == [
        (work, 12.0, 17.0, 0.0, round(5 / 7.5, 6)),
        (mistake, 17.0, 19.5, round(5 / 7.5, 6), round(5 / 7.5, 6)),
        (work, 19.5, 22.0, round(5 / 7.5, 6), 1.0),
    ]
    assert of(one, "S5") == [(work, 40.0, 49.0, 0.0, 1.0), (mistake, 49.0, 50.0, 1.0, 1.0)]
    assert [k for k, *_ in of(two, "S2")] == [work, mistake, work, mistake, work]
    starts = [a.start_s for a in one.activities]
    assert starts == sorted(starts)
    assert {a.tool for a in one.activities if a.step_id == "S2"} == {"knife"}
    assert all(a.item == "carrot" for a in one.activities if a.step_id in ("S1", "S2"))


def test_a_row_with_the_wrong_step_id_or_an_odd_description_is_placed(tmp_path: Path) -> None:
    content = files()
    for rows in (content[STEPS]["1_2"]["steps"], content[ERRORS][1]["step_annotations"]):
        rows[1]["step_id"] = 3  # the description says peel, the number says cut
        rows[3]["description"] = "Stir-Stir it for long"  # known by its number only
        rows.append({"step_id": 77, "description": "Eat-Eat", "start_time": 31, "end_time": 32})
    two = read_captaincook4d(write(tmp_path, content))["val"][0]
    assert two.steps[0].start_s == 13.0
    assert (two.steps[2].start_s, two.steps[2].end_s) == (20.0, 22.0)
    assert [(s.id, s.name, s.start_s) for s in two.steps[5:]] == [("S6", "eat", 31.0)]


def test_without_a_graph_the_first_recording_is_the_plan(tmp_path: Path) -> None:
    content = files()
    del content[GRAPH]
    made = read_captaincook4d(write(tmp_path, content))
    names = ["peel", "cut", "stir", "add", "stir"]
    assert [s.verb for s in made["train"][0].steps] == names
    assert [s.verb for s in made["val"][0].steps] == names


def test_free_steps_of_the_graph_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    content = files()
    content[GRAPH]["edges"] = [[0, 3], [3, 2]]  # peel before cut; 1, 4 and 10 (salt) are free
    one = read_captaincook4d(write(tmp_path, content))["train"][0]
    assert [s.verb for s in one.steps] == ["stir", "peel", "cut", "stir", "add"]


def test_what_a_step_needs_is_followed_through_the_graph(tmp_path: Path) -> None:
    content = files()
    for rows in (content[STEPS]["1_2"]["steps"], content[ERRORS][1]["step_annotations"]):
        rows[3].update(start_time=0.5, end_time=0.9)  # stirred first: nothing is peeled or cut
    error = {"tag": "Order Error", "description": "too early"}
    content[ERRORS][1]["step_annotations"][3]["errors"] = [error]
    (mistake,) = read_captaincook4d(write(tmp_path, content))["val"][0].steps[2].mistakes
    assert mistake.correction == "first peel 1 carrot"  # two edges away, and before the cutting


def test_a_test_split_is_read_and_seeds_are_stable(tmp_path: Path) -> None:
    content = files()
    content[SPLIT] = {"test": ["1_2", "1_1"]}
    made = read_captaincook4d(write(tmp_path, content))["test"]
    assert [t.video_uid for t in made] == ["1_2", "1_1"]
    # Python's own hash() would give other numbers in every process
    assert [t.scene_seed for t in made] == [3949091048, 739427732]


@pytest.mark.skipif(not DATA_DIR.is_dir(), reason=f"no CaptainCook4D annotations in {DATA_DIR}")
def test_all_real_recordings_make_sound_timelines() -> None:
    made = read_captaincook4d(DATA_DIR)
    timelines = [t for split in made.values() for t in split]
    assert {split: len(v) for split, v in made.items()} == {"train": 213, "val": 62}
    assert len({t.video_uid for t in timelines}) == 275
    assert len({t.scene_seed for t in timelines}) == 275
    steps_of: dict[str, set] = {}
    for timeline in timelines:
        steps_of.setdefault(timeline.task, set()).add(tuple((s.id, s.name) for s in timeline.steps))
        assert Timeline.from_json(timeline.to_json()) == timeline
        assert [s.id for s in timeline.steps] == [f"S{i + 1}" for i in range(len(timeline.steps))]
        starts = [a.start_s for a in timeline.activities]
        assert starts == sorted(starts)
        for step in timeline.steps:
            acts = [a for a in timeline.activities if a.step_id == step.id]
            assert step.verb in step.name
            assert step.item in step.name
            if step.start_s is None or step.end_s is None:
                assert acts == []
                assert step.mistakes == ()
                continue
            assert acts[0].start_s == step.start_s
            assert max(a.end_s for a in acts) == step.end_s <= timeline.duration_s
            assert (acts[0].progress[0], acts[-1].progress[1]) == (0.0, 1.0)
            for activity, later in zip(acts, [*acts[1:], None], strict=True):
                assert activity.start_s < activity.end_s
                if later is not None:
                    assert activity.progress[1] == later.progress[0]
            for mistake in step.mistakes:
                assert step.start_s < mistake.time_s < step.end_s
                assert all(word in mistake.correction for word in mistake.keywords)
                assert any(
                    a.kind is ActivityKind.MISTAKE and a.start_s <= mistake.time_s < a.end_s
                    for a in acts
                )
    assert len(steps_of) == 24
    assert all(len(plans) == 1 for plans in steps_of.values())  # the plan is the recipe's
    all_steps = [s for t in timelines for s in t.steps]
    named = sum(s.item != s.verb for s in all_steps)
    assert named / len(all_steps) > 0.95
    assert sum(len(s.mistakes) for s in all_steps) == 1653 - 212  # all but those of skipped steps


def test_what_is_drawn_belongs_to_what_the_annotations_say(tmp_path: Path) -> None:
    def folder(root: Path) -> Path:
        return generated_folder(DataConfig(source="captaincook4d", root=str(root), cache="cache"))

    first = folder(write(tmp_path / "here", files()))
    assert folder(write(tmp_path / "moved", files())) == first
    corrected = files()
    corrected[GRAPH]["edges"] = [[0, 3], [0, 2], [2, 1], [3, 1], [1, 10], [10, 4], [4, 11]]
    assert folder(write(tmp_path / "here", corrected)) != first
