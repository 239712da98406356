from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import pytest
import torch

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    FramesTurn,
    SystemTurn,
    Turn,
    UserTurn,
)
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.streaming.baselines import (
    borrowed_features,
    clock,
    clock_candidates,
    frequent_utterance,
    speak_when,
    utterance_intervals_s,
)
from tests.fakes import DIALOGUE, dialogue, random_features


def test_frequent_utterance_is_the_most_common_then_the_first() -> None:
    turns = (
        FramesTurn(start=0, end=1),
        *(AssistantTurn(content=text) for text in ("wait", "good", "wait", "all", "good")),
    )

    assert frequent_utterance([dialogue(turns)]) == "good"
    assert frequent_utterance([dialogue(turns), dialogue((*turns, turns[1]))]) == "wait"
    assert frequent_utterance([dialogue((FramesTurn(start=0, end=1),))]) == "Okay."


def test_speak_when_speaks_there_and_nowhere_else() -> None:
    transcript = speak_when(dialogue(), "wait", lambda index: index in (0, 3))

    assert [f.text for f in transcript.frames] == ["wait", "", "", "wait"] + [""] * 6
    assert [f.speak for f in transcript.frames] == [True, False, False, True] + [False] * 6
    assert [f.frame_idx for f in transcript.frames] == list(range(10, 20))
    assert transcript.frames[2].time_s == 6.0
    assert transcript.frames[7].user_text == "how many"
    assert next(r.text for r in transcript.references if r.text) == "first wash"
    assert transcript.stream_id == "video_0_user"


def test_clock_speaks_at_the_end_of_every_interval() -> None:
    frames = clock(dialogue(), "wait", 1.5).frames  # 3 frames at 2 fps

    assert [i for i, frame in enumerate(frames) if frame.speak] == [2, 5, 8]
    assert all(frame.speak for frame in clock(dialogue(), "wait", 0.01).frames)


def spoken_at(*frames: int, times_s: Sequence[float | None] = ()) -> Conversation:
    turns: list[Turn] = []
    start = 0
    for frame, time_s in zip_longest(frames, times_s):
        turns += [
            FramesTurn(start=start, end=frame + 1), AssistantTurn(content="wait", time_s=time_s)
        ]  # fmt: skip
        start = frame + 1
    return dialogue(tuple(turns))


def test_clock_candidates_surround_the_intervals_of_training() -> None:
    candidates = clock_candidates([spoken_at(1, 9, 17, 41)])  # 2 fps

    mean = 20 / 3
    assert candidates == sorted({4.0, 8.0, round(mean, 2), round(mean / 2, 2), mean * 1.5})
    assert clock_candidates([dialogue((FramesTurn(start=0, end=1),))]) == [10.0]


@pytest.mark.parametrize("times_s", [(), (0.5, None, None, 9.0), (0.5, 4.0, 6.0, 9.0)])
def test_intervals_are_between_utterances_of_one_conversation(
    times_s: Sequence[float | None],
) -> None:
    one = spoken_at(1, 8, 12, 18, times_s=times_s)

    assert utterance_intervals_s([one, one]).tolist() == [3.5, 2.0, 3.0] * 2
    assert utterance_intervals_s([]).size == 0


def test_intervals_are_between_what_a_clock_is_scored_by() -> None:
    assert utterance_intervals_s([dialogue()]).tolist() == [2.0, 1.5]  # two turns, one utterance
    answer = (UserTurn(content="how many"), AssistantTurn(content="three"))
    summary = (SystemTurn(content=SUMMARY_QUERY), FramesTurn(start=24, end=25),
               AssistantTurn(content="so far"))  # fmt: skip
    turns = (*DIALOGUE, FramesTurn(start=20, end=24), *answer, *summary)

    assert utterance_intervals_s([dialogue(turns)]).tolist() == [2.0, 1.5, 3.0]


def test_borrowed_features_are_of_another_recording() -> None:
    longer = dialogue((*DIALOGUE, FramesTurn(start=20, end=34)), video_uid="longer")
    conversations = [dialogue(), dialogue(metadata={"user_type": "other"}), longer]
    files = {"video": random_features(10, seed=1), "longer": random_features(24, seed=2)}

    def read(conversation):
        return files[conversation.video_uid]

    assert torch.equal(borrowed_features(conversations, 0, read), files["longer"][:10])
    assert torch.equal(borrowed_features(conversations, 1, read), files["longer"][:10])
    repeated = borrowed_features(conversations, 2, read)
    assert torch.equal(repeated, torch.cat([files["video"]] * 3)[:24])


def test_a_single_recording_is_run_backwards() -> None:
    features = random_features()

    assert torch.equal(borrowed_features([dialogue()], 0, lambda _: features), features.flip(0))


@pytest.mark.parametrize("k", [1, 5])
def test_borrowed_features_keep_their_shape(k: int) -> None:
    conversations = [dialogue(), dialogue(video_uid="other")]

    assert borrowed_features(conversations, 0, lambda _: random_features(4, k)).shape == (10, k, 6)
