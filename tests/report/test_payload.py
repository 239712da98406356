from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from proassist_lit.errors import StreamError
from proassist_lit.report.payload import MAX_CURVE_POINTS, make_payload
from proassist_lit.report.run_report import RunReport, StreamView
from proassist_lit.types import FrameOutput, Reference, StepState, Transcript, Transition, Update

from .fakes import cooking_stream, picture


def tiny_stream(**changes: object) -> StreamView:
    """Four frames from frame 10 on, one said and matched, one said too much, one not said."""
    state = {"S1": StepState.NOT_STARTED}
    doing = {"S1": StepState.IN_PROGRESS}
    started = (Update("S1", Transition.START),)

    def frame(k: int, **more: object) -> FrameOutput:
        given = {"speak_prob": 0.123456, "dst_prob": 0.2, "speak": False, "dst": False,
                 "state": state, "context_len": 20 + 5 * k}  # fmt: skip
        return FrameOutput(frame_idx=10 + k, time_s=(10 + k) / 2, **{**given, **more})

    view = StreamView(
        split="test",
        theta_speak=0.5,
        theta_dst=0.25,
        semantic_threshold=0.5,
        transcript=Transcript(
            stream_id="s",
            dataset="toy",
            fps=2.0,
            steps=(("S1", "slice"),),
            frames=(
                frame(0, user_text="Hi."),
                frame(1, speak=True, text="Slice it."),
                frame(2, dst=True, updates=started, state=doing, speak_prob=math.nan),
                frame(3, speak=True, state=doing, event="drop_all"),
            ),
            references=(
                Reference(text="Slice.", state=state),
                Reference(state=state),
                Reference(text="Good.", state=doing, updates=started),
                Reference(state=doing),
            ),
        ),
        matched=[(11, 10, 0.9)],
        missed=[12],
        redundant=[13],
    )
    return replace(view, **changes)


def stream_payload(view: StreamView) -> dict:
    payload = make_payload(RunReport(title="", config_yaml="", metrics={}, streams=[view]))
    return json.loads(json.dumps(payload, allow_nan=False))["streams"][0]


def test_stream_becomes_arrays_over_frames() -> None:
    stream = stream_payload(tiny_stream())
    assert (stream["n"], stream["first"], stream["frames"]) == (4, 10, None)
    assert stream["speakProb"] == [0.1235, 0.1235, None, 0.1235]
    assert stream["speakAt"] == [1, 3]
    assert stream["dstAt"] == [2]
    assert stream["user"] == [[0, "Hi."]]
    assert stream["contextSteps"] == [20, 5, 5, 5]
    assert stream["events"] == [[3, "drop_all"]]
    assert stream["thetaSpeak"] == 0.5
    assert stream_payload(tiny_stream(theta_speak=None))["thetaSpeak"] is None  # by a rule


def test_words_carry_their_mark_and_partner() -> None:
    stream = stream_payload(tiny_stream())
    assert stream["gen"] == [[1, "Slice it.", "matched", 0, 0.9], [3, "", "redundant", -1, None]]
    assert stream["ref"] == [[0, "Slice.", "matched", 1, 0.9], [2, "Good.", "missed", -1, None]]


@pytest.mark.parametrize(
    ("semantic", "threshold", "mark"),
    [
        (0.5, 0.5, "matched"),
        (0.49, 0.5, "mismatched"),
        (0.49, 0.25, "matched"),
        (0.5, 0.75, "mismatched"),
    ],
)
def test_a_pair_below_the_threshold_of_the_matching_is_mismatched(
    semantic: float, threshold: float, mark: str
) -> None:
    view = tiny_stream(matched=[(11, 10, semantic)], semantic_threshold=threshold)
    stream = stream_payload(view)
    assert stream["gen"][0][2] == stream["ref"][0][2] == mark


def test_words_that_no_list_names_are_unscored() -> None:
    stream = stream_payload(tiny_stream(matched=[], missed=[], redundant=[]))
    assert {u[2] for u in stream["gen"] + stream["ref"]} == {"unscored"}


def test_states_are_runs_and_updates_are_text() -> None:
    stream = stream_payload(tiny_stream())
    assert stream["genStates"] == [[[0, 0], [2, 1]]]
    assert stream["refStates"] == [[[0, 0], [2, 1]]]
    assert stream["genUpdates"] == [[2, "S1->start", 0]]
    assert stream["refUpdates"] == [[2, "S1->start"]]


def test_stream_without_dst_head_has_no_dst_line() -> None:
    view = tiny_stream()
    frames = tuple(replace(frame, dst_prob=None) for frame in view.transcript.frames)
    stream = stream_payload(replace(view, transcript=replace(view.transcript, frames=frames)))
    assert stream["dstProb"] is None


def test_frames_that_skip_are_listed() -> None:
    view = tiny_stream()
    frames = tuple(
        replace(frame, frame_idx=10 + 2 * k) for k, frame in enumerate(view.transcript.frames)
    )
    transcript = replace(view.transcript, frames=frames)
    stream = stream_payload(
        replace(view, transcript=transcript, matched=[], missed=[], redundant=[])
    )
    assert stream["frames"] == [10, 12, 14, 16]


def test_film_is_in_order_and_inline() -> None:
    png = cooking_stream().filmstrip[0][1]
    stream = stream_payload(tiny_stream(filmstrip=[(13, png), (10, b"\xff\xd8\xff\xe0")]))
    assert [frame for frame, _ in stream["film"]] == [10, 13]
    assert stream["film"][0][1] == "data:image/jpeg;base64,/9j/4A=="
    assert stream["film"][1][1].startswith("data:image/png;base64,iVBOR")


def test_long_curves_keep_their_spikes() -> None:
    points = [(s, 1.0) for s in range(20_000)]
    points[7_777] = (7_777, 99.0)
    points[3] = (3, math.nan)
    payload = make_payload(RunReport(title="", config_yaml="", metrics={}, curves={"x": points}))
    curve = payload["curves"][0]
    assert len(curve["steps"]) <= MAX_CURVE_POINTS
    assert curve["values"][curve["steps"].index(7_777)] == 99
    assert curve["steps"] == sorted(curve["steps"])


def test_not_a_number_in_a_short_curve_is_a_gap() -> None:
    curves = {"train/loss": [(0, 1.0), (1, math.inf), (2, 0.123456789)], "empty": []}
    payload = make_payload(RunReport(title="", config_yaml="", metrics={}, curves=curves))
    assert [curve["name"] for curve in payload["curves"]] == ["train/loss"]
    assert payload["curves"][0]["values"] == [1, None, 0.12346]


@pytest.mark.parametrize("field", ["matched", "missed", "redundant"])
def test_marks_of_unknown_frames_are_refused(field: str) -> None:
    marks = {"matched": [(11, 1, 0.9)], "missed": [1], "redundant": [1]}[field]
    with pytest.raises(StreamError, match=rf"stream 's': {field} names frames \[1\].*frame_idx"):
        tiny_stream(**{field: marks})


def test_pictures_of_another_format_are_refused() -> None:
    with pytest.raises(StreamError, match=r"picture of frame 10 begins with b'GIF8'.*encode"):
        tiny_stream(filmstrip=[(10, b"GIF89a")])


def test_fake_pictures_differ() -> None:
    import random

    assert picture(0.0, random.Random(0)) != picture(0.9, random.Random(0))


def test_earlier_run_stands_in_the_payload() -> None:
    report = RunReport(
        title="", config_yaml="", metrics={"test/speak_f1": 0.5}, earlier={"test/speak_f1": 0.75}
    )
    payload = make_payload(report)
    assert payload["earlier"] == "the earlier run"
    row = payload["headline"][0]
    assert (row["earlier"], row["change"], row["better"]) == (0.75, -0.25, False)
    assert payload["key"][0]["better"] is False
    assert make_payload(replace(report, earlier=None))["earlier"] is None
    assert make_payload(replace(report, earlier_name="run 7"))["earlier"] == "run 7"
