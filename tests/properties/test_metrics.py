"""What must hold of the metrics for any streams at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proassist_lit.metrics.dst import DstMetrics
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.speaking import FrameDecisionMetrics
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.metrics.text import TextPairMetrics, matched_texts
from proassist_lit.metrics.utterances import UtteranceMetrics
from proassist_lit.types import (
    FrameOutput,
    Reference,
    StepState,
    Transcript,
    Transition,
    Update,
    apply_updates,
)
from tests.properties.strategies import examples

WORDS = HashedWordSimilarity(num_dims=4096)
MATCHER = Matcher(WORDS)
STEPS = tuple((f"S{i}", f"step {i}") for i in range(1, 4))
FPS = 2.0

Said = Mapping[int, str]
Done = Mapping[int, Sequence[Update]]


def stream(num_frames: int, gens: Said, refs: Said, mine: Done, theirs: Done) -> Transcript:
    """Texts and updates by frame; probabilities follow them."""
    state = ref_state = dict.fromkeys((step for step, _ in STEPS), StepState.NOT_STARTED)
    frames, references = [], []
    for i in range(num_frames):
        state, invalid = apply_updates(state, mine.get(i, ()))
        ref_state, _ = apply_updates(ref_state, theirs.get(i, ()))
        frames.append(
            FrameOutput(
                frame_idx=i, time_s=i / FPS, speak_prob=0.8 if i in gens else 0.2,
                dst_prob=0.7 if i in mine else 0.1, speak=i in gens, dst=i in mine,
                text=gens.get(i, ""), updates=tuple(mine.get(i, ())), dst_invalid=invalid,
                state=state,
            )
        )  # fmt: skip
        references.append(
            Reference(
                text=refs.get(i, ""), updates=tuple(theirs.get(i, ())), state=ref_state,
                keywords=tuple(refs.get(i, "").split()[:1]),
                speak_label=int(i in refs), dst_label=int(i in theirs),
            )
        )  # fmt: skip
    return Transcript(
        stream_id="s", dataset="toy", fps=FPS, steps=STEPS,
        frames=tuple(frames), references=tuple(references),
    )  # fmt: skip


@st.composite
def places(draw: st.DrawFn, *, gap: int = 1) -> tuple[int, list[int]]:
    """Length of a stream, and frames in it that lie ``gap`` apart and not at its end."""
    gaps = draw(st.lists(st.integers(gap, gap + 6), max_size=8))
    frames = [sum(gaps[: i + 1]) - gap for i in range(len(gaps))]
    return (frames[-1] if frames else 0) + draw(st.integers(2, 9)), frames


def told_apart(frames: Sequence[int]) -> dict[int, str]:
    """Utterances that share no word."""
    return {frame: f"verb{i} object{i} tool{i}" for i, frame in enumerate(frames)}


def in_order(frames: Sequence[int]) -> dict[int, list[Update]]:
    """Steps started and completed one after the other, as far as the frames go."""
    moves = [Update(step, how) for step, _ in STEPS for how in (Transition.START,
                                                               Transition.COMPLETE)]  # fmt: skip
    return {frame: [move] for frame, move in zip(frames, moves, strict=False)}


texts = st.lists(
    st.sampled_from(["cut", "fry", "stir", "the", "pan", "knife", "now"]), min_size=1, max_size=4
)
speech = st.dictionaries(st.integers(0, 19), texts.map(" ".join), max_size=6)
updates = st.dictionaries(
    st.integers(0, 19),
    st.lists(
        st.builds(Update, st.sampled_from(["S1", "S2", "S9"]), st.sampled_from(Transition)),
        min_size=1, max_size=2,
    ),
    max_size=4,
)  # fmt: skip
any_stream = st.builds(stream, st.just(20), speech, speech, updates, updates)


@examples(40)
@given(places())
def test_perfect_streams_score_one(drawn: tuple[int, list[int]]) -> None:
    num_frames, frames = drawn
    said, done = told_apart(frames), in_order(frames)
    scores = evaluate_transcripts([stream(num_frames, said, said, done, done)], MATCHER)
    for name in ("speak_f1", "utterance_precision", "utterance_recall", "utterance_f1",
                 "utterance_jaccard", "dst_update_f1", "dst_step_accuracy",
                 "dst_transition_accuracy", "dst_joint_goal_accuracy"):  # fmt: skip
        assert scores[name] == 1.0, name
    assert scores.get("content_accuracy", 1.0) == 1.0
    assert scores.get("utterance_time_difference_s", 0.0) == 0.0


@examples(40)
@given(places(gap=2))
def test_one_frame_late_finds_the_same_matches(drawn: tuple[int, list[int]]) -> None:
    num_frames, frames = drawn
    said, done = told_apart(frames), in_order(frames)
    late = {frame + 1: text for frame, text in said.items()}
    late_done = {frame + 1: moves for frame, moves in done.items()}
    transcript = stream(num_frames, late, said, late_done, done)
    (match,) = MATCHER.match_all([transcript])
    assert [(pair.gen_frame, pair.ref_frame) for pair in match.matched] == [
        (frame + 1, frame) for frame in frames
    ]
    scores = evaluate_transcripts([transcript], MATCHER)
    assert scores["utterance_f1"] == scores["utterance_jaccard"] == scores["dst_update_f1"] == 1.0
    if frames:
        assert scores["utterance_time_difference_s"] == 1 / FPS
        assert scores["speak_f1"] < 1.0


@examples(40)
@given(places(gap=10), st.data())
def test_swapping_two_utterances_costs(drawn: tuple[int, list[int]], data: st.DataObject) -> None:
    num_frames, frames = drawn
    if len(frames) < 2:
        return
    said = told_apart(frames)
    first, second = data.draw(st.permutations(frames))[:2]
    swapped = said | {first: said[second], second: said[first]}
    right, wrong = (
        evaluate_transcripts([stream(num_frames, texts, said, {}, {})], MATCHER)
        for texts in (said, swapped)
    )
    assert wrong["utterance_f1"] < right["utterance_f1"] == 1.0
    assert wrong["utterance_num_mismatched"] + wrong["utterance_num_redundant"] == 2


@examples(40)
@given(st.lists(any_stream, min_size=2, max_size=5), st.data())
def test_metrics_of_a_union_are_the_merged_metrics(
    streams: list[Transcript], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(streams) - 1))
    for make in (
        lambda: FrameDecisionMetrics("speak"),
        lambda: FrameDecisionMetrics("dst"),
        lambda: UtteranceMetrics(MATCHER),
        DstMetrics,
    ):
        whole, left, right = make(), make(), make()
        whole.update(streams)
        left.update(streams[:cut])
        right.update(streams[cut:])
        left.merge_state(right)
        merged, expected = (
            {name: float(value) for name, value in metric.compute().items()}
            for metric in (left, whole)
        )
        assert merged == pytest.approx(expected, abs=1e-12)
    texts = [TextPairMetrics("utterance") for _ in range(3)]
    for metric, part in zip(texts, (streams, streams[:cut], streams[cut:]), strict=True):
        metric.update(matched_texts(part, MATCHER.match_all(part)))
    texts[1].merge_state(texts[2])
    assert texts[1].compute() == texts[0].compute()


@examples(40)
@given(any_stream)
def test_scores_are_shares_and_counts_add_up(transcript: Transcript) -> None:
    scores = evaluate_transcripts([transcript], MATCHER)
    for name, value in scores.items():
        if name.endswith(("precision", "recall", "f1", "jaccard", "accuracy", "rate", "ece")):
            assert 0.0 <= value <= 1.0, name
    pairs = scores["utterance_num_matched"] + scores["utterance_num_mismatched"]
    assert pairs + scores["utterance_num_missed"] == sum(
        bool(r.text) for r in transcript.references
    )
    assert pairs + scores["utterance_num_redundant"] == sum(bool(f.text) for f in transcript.frames)
    silent = replace(
        transcript, frames=tuple(replace(f, speak=False, text="") for f in transcript.frames)
    )
    assert evaluate_transcripts([silent], MATCHER)["utterance_num_redundant"] == 0
