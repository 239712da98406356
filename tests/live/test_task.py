from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast
from unicodedata import normalize

import pytest

from proassist_lit.commands.assistant import LoadedRun
from proassist_lit.data.conversation import FramesTurn, SystemTurn, UserTurn
from proassist_lit.errors import ConfigError, RecordError
from proassist_lit.live.assistant import LiveAssistant
from proassist_lit.live.task import find_task, parse_task, read_task, task_of_recording
from proassist_lit.live.thresholds import with_thresholds
from proassist_lit.live.user_words import Saying, heard_at, parse_saying
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text
from proassist_lit.streaming.config import SpeakRule, StreamConfig
from proassist_lit.types import StepState
from tests.fakes import NOT_STARTED, STEPS, dialogue, tiny_model

RECORDING = dialogue(
    (
        SystemTurn(content="please help"),
        UserTurn(content="make soup"),
        SystemTurn(content="Task knowledge: wash. peel."),
        FramesTurn(start=10, end=14),
        UserTurn(content="how many"),
        FramesTurn(start=14, end=16),
    )
)


def test_a_recording_gives_its_task_and_what_is_heard_in_it() -> None:
    task = task_of_recording(RECORDING)
    assert (task.name, task.prompt, task.steps) == ("video_0_user", "please help", STEPS)
    assert task.script().initial_state == NOT_STARTED
    told = Text(role=Role.SYSTEM, content="Task knowledge: wash. peel.")
    user = [Text(role=Role.USER, content=words) for words in ("make soup", "how many")]
    assert task.arrivals(first_frame=3) == {3: [told]}
    assert task.arrivals(first_frame=3, recorded=True) == {
        3: [told], 10: [user[0]], 14: [user[1]],
    }  # fmt: skip
    assert task.arrivals(first_frame=10, recorded=True) == {10: [user[0], told], 14: [user[1]]}
    # What was said in the time before nobody hears; what is known of the task comes first.
    assert task.arrivals(first_frame=11, recorded=True) == {11: [told], 14: [user[1]]}
    assert task.arrivals(first_frame=14, recorded=True) == {14: [told, user[1]]}
    assert task.arrivals(first_frame=15, recorded=True) == {15: [told]}
    bare = task_of_recording(RECORDING, steps=False)
    assert (bare.prompt, bare.steps, bare.arrivals()) == ("please help", (), {0: []})


def test_a_task_is_read_from_json(tmp_path: Path) -> None:
    path = tmp_path / "tea.json"
    steps = ["boil water", {"id": "S7", "name": "steep"}]
    path.write_text(json.dumps({"prompt": " Help. ", "knowledge": "Tea.", "steps": steps}))
    task = find_task(str(path), [])
    assert (task.name, task.prompt) == ("tea", "Help.")
    assert [(step.id, step.name) for step in task.steps] == [("S1", "boil water"), ("S7", "steep")]
    assert set(task.initial_state.values()) == {StepState.NOT_STARTED}
    assert [text.content for text in task.opening] == ["Task knowledge: Tea."]
    assert parse_task({"prompt": "p"}, where="x", name="n").opening == ()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], r"t\.json: expected a JSON object in braces, got \[\]; write one"),
        ({"prompt": "p", "step": []}, "unknown key 'step'; a task is a JSON object with"),
        ({"steps": []}, "'prompt' is missing or empty; write what"),
        ({"prompt": " "}, "'prompt' is missing or empty; write what"),
        ({"prompt": 3}, "'prompt' must be a string, got 3; correct"),
        ({"prompt": "half \ud83d"}, "'prompt' holds half of a surrogate pair.*remove"),
        ({"prompt": "p", "knowledge": None}, "'knowledge' must be a string, got None; correct"),
        ({"prompt": "p", "knowledge": "\ud83d"}, "'knowledge' holds half of a surrogate.*remove"),
        ({"prompt": "p", "steps": "wash"}, "'steps' must be a list, got 'wash'; correct"),
        ({"prompt": "p", "steps": [""]}, r"step 1: 'name' is empty; write"),
        ({"prompt": "p", "steps": [3]}, "step 1: expected a JSON object in braces, got 3; write"),
        ({"prompt": "p", "steps": ["\ud83d"]}, "step 1: 'name' holds half of a surrogate.*remove"),
        ({"prompt": "p", "steps": ["a", {"id": "S2"}]}, "step 2: the key 'name' is missing; add"),
        (
            {"prompt": "p", "steps": [{"id": "S1", "name": "a", "time": 3}]},
            "step 1: unknown key 'time'; write its name, or an object with id and name",
        ),
        (
            {"prompt": "p", "steps": [{"id": "S1;S2", "name": "a"}]},
            "step 1: the id 'S1;S2' must be letters and digits, 32 at most; call it S1",
        ),
        (
            {"prompt": "p", "steps": ["a", {"id": "S->start", "name": "b"}]},
            "step 2: the id 'S->start' must be letters.*; call it S2",
        ),
        (
            {"prompt": "p", "steps": ["a", {"id": "S1", "name": "b"}]},
            "step 2: the id 'S1' is that of an earlier step; give each",
        ),
    ],
)
def test_a_wrong_task_is_refused(raw: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(RecordError, match=message):
        read_task(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "p", "prompt": "q"}', "not valid JSON: the key 'prompt' is given twice"),
        (b'{"prompt": "p", "steps": [NaN]}', "not valid JSON: NaN is not a JSON number"),
        (b'{"prompt": "\xff"}', "not valid JSON: 'utf-8' codec can't decode"),
    ],
)
def test_a_task_that_is_no_strict_json_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(RecordError, match=rf"t\.json: {message}"):
        read_task(tmp_path / "t.json")


def test_a_task_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"prompt": "p"}', encoding="utf-8-sig")
    assert read_task(tmp_path / "t.json").prompt == "p"


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none\.json: cannot be read as a task"):
        read_task(tmp_path / "none.json")


def test_a_recording_is_found_by_its_id_or_its_video() -> None:
    recordings = [dialogue(video_uid="soup"), dialogue(video_uid="salad")]
    assert find_task("salad_0_user", recordings).name == "salad_0_user"
    assert find_task("soup", recordings).name == "soup_0_user"
    with pytest.raises(RecordError, match=r"task 'sou': is no JSON file and no rec.*say, soup"):
        find_task("sou", recordings)


def test_recordings_of_one_name_are_told_apart_by_their_data_sets() -> None:
    recordings = [
        replace(dialogue(video_uid=video_uid), dataset=dataset)
        for dataset, video_uid in (("tea", "v1"), ("soup", "v1"), ("soup", "v2"))
    ]
    for wanted in ("soup/v1", "soup/v1_0_user"):
        task = find_task(wanted, recordings)
        assert task == task_of_recording(recordings[1])
    assert find_task("v2", recordings) == find_task("soup/v2", recordings)
    with pytest.raises(ConfigError, match=r"'v1': is a recording of 2 data.*--task tea/v1 or soup"):
        find_task("v1", recordings)
    named = replace(recordings[0], names_dataset=True)
    assert task_of_recording(named).name == "tea/v1_0_user"
    assert find_task("tea/v1_0_user", [named, *recordings[1:]]).name == "tea/v1_0_user"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_recording_is_found_however_its_accents_are_written(form: Literal["NFC", "NFD"]) -> None:
    recordings = [dialogue(video_uid=normalize(form, "thé_1"))]
    for wanted in ("thé_1", "thé_1_0_user", "toy/thé_1"):
        for other in ("NFC", "NFD"):
            found = find_task(normalize(other, wanted), recordings)
            assert found.name == normalize(form, "thé_1_0_user")


def test_sayings_are_heard_before_the_first_frame_not_earlier() -> None:
    sayings = [parse_saying("12.5:How long: 3 or 4?"), parse_saying("0.1: Hi "), Saying(0.5, "you")]
    told = [Text(role=Role.SYSTEM, content="told")]
    heard = heard_at(sayings, 2.0, {1: told})
    assert {frame: [text.content for text in texts] for frame, texts in heard.items()} == {
        1: ["told", "Hi", "you"], 25: ["How long: 3 or 4?"],
    }  # fmt: skip
    assert len(told) == 1


@pytest.mark.parametrize(
    ("text", "time_s", "words"),
    [
        ("65:How long?", 65.0, "How long?"),
        ("1:05:How long?", 65.0, "How long?"),
        ("1:05.5: How long: 3 or 4?", 65.5, "How long: 3 or 4?"),
        ("75:03.0:Hi", 4503.0, "Hi"),  # as `watch` prints it
        ("1:15:03:Hi", 4503.0, "Hi"),
        ("5:30 seconds, or 40?", 5.0, "30 seconds, or 40?"),
        ("1:05:10 minutes?", 65.0, "10 minutes?"),
        ("1e1:Hi", 10.0, "Hi"),
    ],
)
def test_the_time_of_a_saying_is_in_seconds_or_as_a_clock_shows_it(
    text: str, time_s: float, words: str
) -> None:
    assert parse_saying(text) == Saying(time_s, words)


@pytest.mark.parametrize(
    "text",
    ["Hello", "x:Hello", "1:05:", f"{'9' * 400}:00:Hi", "-1:Hello", "nan:Hello", "3:", "3: ", ":x"],
)
def test_a_saying_without_time_or_words_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--say {text!r}: give the seconds")):
        parse_saying(text)


def test_thresholds_are_those_of_the_last_split_unless_given() -> None:
    config = StreamConfig(theta_speak=0.9)
    metrics = {"val/theta_speak": 0.1, "val/theta_dst": 0.2, "test/theta_speak": 0.3}
    found = with_thresholds(config, metrics)
    assert (found.theta_speak, found.theta_dst) == (0.3, 0.2)
    found = with_thresholds(config, metrics, given=["theta_speak"])
    assert (found.theta_speak, found.theta_dst) == (0.9, 0.2)
    by_sum = replace(config, rule=SpeakRule.RUNNING_SUM)
    with pytest.raises(
        ConfigError, match=r"stream\.rule=running_sum was set, but .*set stream\.theta"
    ):
        with_thresholds(by_sum, metrics, given=["rule"])
    found = with_thresholds(by_sum, metrics, given=["rule", "theta_speak"])
    assert (found.theta_speak, found.theta_dst) == (0.9, 0.2)
    with pytest.raises(ConfigError, match=r"no theta_dst: it was not eval.*stream.theta_dst=0\.5"):
        with_thresholds(config, {})


@pytest.mark.parametrize("dst", [True, False])
def test_a_model_without_a_head_for_the_state_is_given_no_steps(tmp_path: Path, dst: bool) -> None:
    path = tmp_path / "tea.json"
    path.write_text(json.dumps({"prompt": "Help.", "knowledge": "Tea.", "steps": ["boil water"]}))
    assistant = SimpleNamespace(model=tiny_model(dst=dst))
    loaded = LoadedRun(cast(LiveAssistant, assistant), {})

    task = loaded.task(str(path))

    assert bool(task.steps) == bool(task.initial_state) == dst
    assert replace(task, steps=(), initial_state={}) == read_task(path).without_steps()
