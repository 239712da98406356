from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proassist_lit.commands.assistant import LoadedRun, add_assistant_options, load_run
from proassist_lit.data.features import FeatureFile
from proassist_lit.encoding.encode import encode_videos
from proassist_lit.encoding.jobs import find_jobs
from proassist_lit.encoding.manifest import Settings
from proassist_lit.encoding.progress import EncodingProgress
from proassist_lit.errors import ConfigError, StreamError, VideoError
from proassist_lit.live import watching
from proassist_lit.live.task import Task, task_of_recording
from proassist_lit.live.watching import RealTime, watch_video
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.evaluate import stream_conversation, stream_conversations
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.types import FrameOutput
from proassist_lit.vision.encoder import UNIT
from proassist_lit.vision.encoders import ThumbnailEncoder
from proassist_lit.vision.video import Raster

from .trained import TrainedRun

pytestmark = pytest.mark.road


@pytest.fixture(scope="module")
def loaded(run: TrainedRun) -> LoadedRun:
    parser = argparse.ArgumentParser()
    add_assistant_options(parser)
    return load_run(parser.parse_args([str(run.folder), "--device", "cpu"]))


@pytest.fixture(scope="module")
def answers(loaded: LoadedRun, run: TrainedRun, film: Path) -> list[FrameOutput]:
    task = task_of_recording(run.conversation)
    watched = watch_video(loaded.assistant, task, film, task.arrivals(recorded=True))
    assert (watched.error, watched.unheard, watched.num_dropped) == (None, [], 0)
    return watched.frames


def test_a_video_is_answered_as_its_encoded_features_are(
    loaded: LoadedRun, run: TrainedRun, film: Path, tmp_path: Path, answers: list[FrameOutput]
) -> None:
    encoder = ThumbnailEncoder(4)
    settings = Settings.of(encoder, grids=("cls",), fps=2.0, file_format="safetensors")
    jobs = find_jobs([film], tmp_path, ".safetensors")
    encode_videos(jobs, encoder, settings, EncodingProgress({}, 1))
    features = FeatureFile(jobs[0].target, ["cls"]).read(0, run.conversation.end_frame_idx)

    expected = stream_conversation(
        loaded.assistant.model, loaded.assistant.chat, run.conversation, features, run.config.stream
    )
    assert answers == list(expected.frames)
    assert sum(frame.speak for frame in answers) > 3
    assert sum(frame.dst for frame in answers) > 3


def test_a_video_is_answered_as_the_evaluation_answers_its_recording(
    loaded: LoadedRun, run: TrainedRun, answers: list[FrameOutput]
) -> None:
    config, assistant = run.config.stream, loaded.assistant
    assert config.theta_speak is not None
    features = run.data.features(run.conversation)
    ((_, _, transcript),) = stream_conversations(
        assistant.model, assistant.chat, [run.conversation], lambda _: features, config,
        num_tokens_per_img=1,
    )  # fmt: skip
    margins = [abs(frame.speak_prob - config.theta_speak) for frame in answers]
    assert min(margins) > 1e-6
    for ours, theirs in zip(answers, transcript.frames, strict=True):
        assert replace(ours, speak_prob=0, dst_prob=0) == replace(theirs, speak_prob=0, dst_prob=0)
        assert ours.speak_prob == pytest.approx(theirs.speak_prob, abs=1e-5)


def test_the_run_says_how_it_is_watched_with(loaded: LoadedRun, run: TrainedRun) -> None:
    assistant = loaded.assistant
    assert assistant.encoder.name == "thumbnail4"
    assert (assistant.fps, assistant.num_tokens_per_img) == (2.0, 1)
    assert assistant.config == run.config.stream
    with pytest.raises(ConfigError, match=r"thumbnail8: its features are 192 wide.*reads 48"):
        replace(assistant, encoder=ThumbnailEncoder(8))


def test_one_picture_alone_has_the_features_of_a_unit(loaded: LoadedRun) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    unit = loaded.assistant.look(pictures)
    assert unit.shape == (3, 1, 48)
    alone = torch.stack([loaded.assistant.glance(picture) for picture in pictures])
    torch.testing.assert_close(alone, unit)


class Clock:
    """Time that passes only in sleep, and while a slow assistant answers."""

    def __init__(self) -> None:
        self.now_s, self.slept = 100.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now_s += seconds

    def real_time(self, fps: float) -> RealTime:
        return RealTime(fps, now=lambda: self.now_s, sleep=self.sleep)


def test_frames_whose_time_has_passed_are_gone() -> None:
    clock = Clock()
    time = clock.real_time(2.0)
    assert time.arrives(10)
    clock.now_s += 0.1
    assert time.arrives(11)
    clock.now_s += 1.2  # frame 12 came 0.7 s ago, frame 13 0.2 s ago
    assert not time.arrives(12)
    assert time.arrives(13)
    assert clock.slept == [0.4]


def test_in_real_time_frames_are_dropped_never_queued(
    loaded: LoadedRun, run: TrainedRun, film: Path
) -> None:
    task, clock = task_of_recording(run.conversation), Clock()

    def answer_slowly(frame: FrameOutput) -> None:
        clock.now_s += 1.3 if frame.frame_idx == 4 else 0.2

    hello = Text(role=Role.USER, content="Hello")
    watched = watch_video(
        loaded.assistant, task, film, {5: [hello]}, clock=clock.real_time(2.0), end_s=6.0,
        on_frame=answer_slowly,
    )  # fmt: skip
    assert [frame.frame_idx for frame in watched.frames] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [frame.time_s for frame in watched.frames][5] == 3.0
    assert watched.num_dropped == 1
    heard = {frame.frame_idx: frame.user_text for frame in watched.frames if frame.user_text}
    assert heard == {6: "Hello"}  # before a frame that was dropped: at the next
    assert clock.now_s == pytest.approx(100 + 11 / 2 + 0.2)


def test_watching_begins_and_ends_where_it_is_told(loaded: LoadedRun, film: Path) -> None:
    task = Task(name="none", prompt="Help.")
    late = Text(role=Role.USER, content="too late")
    watched = watch_video(loaded.assistant, task, film, {40: [late]}, start_s=9.9, end_s=15.0)
    assert [frame.frame_idx for frame in watched.frames] == list(range(20, 30))
    assert watched.unheard == [late]
    assert not any(frame.dst for frame in watched.frames)


@pytest.mark.parametrize("fps", [3.0, 29.97])
def test_watching_from_any_frame_shows_that_frame(
    loaded: LoadedRun, film: Path, monkeypatch: pytest.MonkeyPatch, fps: float
) -> None:
    firsts = []

    def decode(_: Path, fps: float, *, start_s: float | Fraction, end_s: float | None) -> Any:
        firsts.append(Raster.of(fps, start_s, end_s).first)
        return iter(())

    monkeypatch.setattr(watching, "decode_video", decode)
    assistant = replace(loaded.assistant, fps=fps)
    for i in range(40):
        watch_video(assistant, Task(name="", prompt=""), film, {}, start_s=i / fps)
    assert firsts == list(range(40))


def test_what_was_answered_before_an_interrupt_or_a_fault_is_kept(
    loaded: LoadedRun, run: TrainedRun, film: Path, tmp_path: Path, answers: list[FrameOutput]
) -> None:
    assistant, task = loaded.assistant, task_of_recording(run.conversation)
    arrivals = task.arrivals(recorded=True)

    def interrupt(frame: FrameOutput) -> None:
        if frame.frame_idx == 20:
            raise KeyboardInterrupt

    watched = watch_video(assistant, task, film, arrivals, on_frame=interrupt)
    assert watched.interrupted
    assert watched.frames == answers[:21]

    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    watched = watch_video(assistant, task, cut, arrivals)
    assert isinstance(watched.error, VideoError)
    num = len(watched.frames)
    assert num % UNIT  # frames of the last, unfinished unit are among them
    assert watched.frames == answers[:num]

    tight = replace(assistant.config, max_context=1200, strategy=Strategy.NONE)
    watched = watch_video(replace(assistant, config=tight), task, film, arrivals)
    assert isinstance(watched.error, StreamError)
    assert watched.frames == answers[: len(watched.frames)]
    assert watched.frames


def test_a_fault_before_the_first_answer_is_raised(loaded: LoadedRun, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.mp4: cannot be opened"):
        watch_video(loaded.assistant, Task(name="", prompt=""), tmp_path / "none.mp4", {})


def test_knowledge_without_room_is_refused_before_anything_is_watched(loaded: LoadedRun) -> None:
    told = Text(role=Role.SYSTEM, content="Task knowledge:" + 4000 * " wash it.")
    loaded.assistant.session(Task(name="tea", prompt="Help."))
    with pytest.raises(ConfigError, match="leaves no room for frames of 1 in"):
        loaded.assistant.session(Task(name="tea", prompt="Help.", opening=(told,)))


def test_thresholds_of_a_session_may_be_set_between_frames(loaded: LoadedRun) -> None:
    session = loaded.assistant.session(Task(name="", prompt="Help."))
    frame = torch.zeros(1, 48)
    never = Thresholds(1.0, 1.0)
    session.thresholds = never
    assert not session.step(frame).speak
    session.thresholds = Thresholds(0.0, 1.0)
    assert session.step(frame).speak
    session.skip_to(9)
    assert session.step(frame).frame_idx == 9
    with pytest.raises(AssertionError, match="time does not go back"):
        session.skip_to(3)
