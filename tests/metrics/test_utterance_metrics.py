from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import AssistantTurn, FramesTurn, SystemTurn
from proassist_lit.judge.dialogue import assistant_lines, reference_lines
from proassist_lit.metrics.match_windows import MatchWindow
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.utterances import UtteranceMetrics, holds_keywords
from proassist_lit.sequence.summary_requests import SUMMARY_QUERY
from proassist_lit.streaming.baselines import speak_when
from tests.fakes import DIALOGUE, dialogue

REFS = {3: "slice the carrot", 9: "boil the water", 15: "serve warm soup"}
KEYWORDS = {3: ("slice", "carrot"), 9: ("boil", "water")}


def score(*transcripts, **arguments) -> dict[str, float]:
    metric = UtteranceMetrics(Matcher(HashedWordSimilarity(), **arguments))
    metric.update(transcripts)
    return {key: float(value) for key, value in metric.compute().items()}


def test_perfect_predictions_score_exactly_one(make_transcript) -> None:
    scores = score(make_transcript(20, REFS, REFS, keywords=KEYWORDS))
    for key in ("precision", "recall", "f1", "jaccard", "semantic_score"):
        assert scores[f"utterance_{key}"] == 1.0, key
    for key in ("missing_rate", "redundant_rate", "time_difference_s"):
        assert scores[f"utterance_{key}"] == 0.0, key
    assert scores["content_accuracy"] == 1.0


def test_what_is_said_where_nobody_knows_is_scored_if_it_answers_something(
    make_transcript,
) -> None:
    gens = {3: REFS[3], 6: "take a rest", 8: " ", 16: REFS[15]}
    refs = {3: REFS[3], 15: REFS[15]}
    known = score(make_transcript(20, gens, refs))
    unknown = score(make_transcript(20, gens, refs, unsupervised=range(4, 20)))
    assert (known["utterance_precision"], known["utterance_num_empty"]) == (2 / 3, 1)
    assert (unknown["utterance_precision"], unknown["utterance_num_empty"]) == (1, 0)
    assert known["utterance_num_matched"] == unknown["utterance_num_matched"] == 2
    missed = score(make_transcript(20, {}, refs, unsupervised=range(20)))
    assert missed["utterance_recall"] == 0


@pytest.mark.parametrize(("late", "fps"), [(1, 2.0), (1, 4.0), (-1, 2.0)])
def test_one_frame_late_or_early_finds_the_same_matches(make_transcript, late, fps) -> None:
    gens = {i + late: text for i, text in REFS.items()}
    transcript = make_transcript(20, gens, REFS, fps=fps)
    match = Matcher(HashedWordSimilarity()).match(transcript)
    assert [(p.gen_frame - late, p.ref_frame) for p in match.pairs] == [(i, i) for i in REFS]
    scores = score(transcript)
    assert scores["utterance_f1"] == 1.0
    assert scores["utterance_time_difference_s"] == 1 / fps


def test_toy_window_allows_one_second_late_and_two_early(make_transcript) -> None:
    def f1(shift: int) -> float:
        return score(make_transcript(30, {10 + shift: "slice"}, {10: "slice"}))["utterance_f1"]

    # Against the window's end the time costs 0.3, still less than the silent frame's 1.
    assert [f1(shift) for shift in (-5, -4, 2, 3)] == [0.0, 1.0, 1.0, 0.0]


def test_swapping_two_utterances_costs(make_transcript) -> None:
    swapped = {3: REFS[9], 9: REFS[3], 15: REFS[15]}
    scores = score(make_transcript(20, swapped, REFS, keywords=KEYWORDS))
    # Only "the" is common: both stay below the threshold and count as mismatched.
    assert scores["utterance_num_mismatched"] == 2
    assert scores["utterance_precision"] == pytest.approx(1 / 3)
    assert scores["utterance_recall"] == pytest.approx(1 / 3)
    assert scores["utterance_jaccard"] == pytest.approx(1 / 3)
    assert scores["content_accuracy"] == 0.0  # the data has keywords, none of them was matched


def test_rates_by_hand(make_transcript) -> None:
    # 4 is half a second late; 9 shares no word, but a silent frame would cost the distance more;
    # 0 could answer 3 too, less well than 4 does.
    gens = {0: "slice", 4: "slice the carrot", 9: "good work", 25: "slice", 29: "stop"}
    refs = {3: REFS[3], 9: REFS[9], 40: "done"}
    scores = score(make_transcript(50, gens, refs))
    assert scores["utterance_num_matched"] == 1
    assert scores["utterance_num_missed"] == 1
    assert scores["utterance_num_mismatched"] == 1
    assert scores["utterance_num_redundant"] == 3
    assert scores["utterance_precision"] == pytest.approx(1 / 5)
    assert scores["utterance_recall"] == pytest.approx(1 / 3)
    assert scores["utterance_f1"] == pytest.approx(2 / 8)
    assert scores["utterance_jaccard"] == pytest.approx(1 / 6)
    assert scores["utterance_missing_rate"] == pytest.approx(1 / 3)
    assert scores["utterance_redundant_rate"] == pytest.approx(3 / 5)
    assert scores["utterance_time_difference_s"] == 0.5


def test_content_accuracy_counts_matched_references_with_keywords(make_transcript) -> None:
    # "slice the onion" shares two of three words: matched, but the wrong object.
    gens = {3: "slice the onion", 9: "Boil the WATER.", 15: "serve warm soup"}
    scores = score(make_transcript(20, gens, REFS, keywords=KEYWORDS))
    assert scores["utterance_num_matched"] == 3
    assert scores["content_accuracy"] == 0.5
    assert "content_accuracy" not in score(make_transcript(20, gens, REFS))


@pytest.mark.parametrize(
    ("text", "keywords", "expected"),
    [
        ("Slice the carrot.", ("slice", "carrot"), True),
        ("Slice the carrots.", ("carrot",), False),
        ("Use the cutting  board", ("Cutting board",), True),
        ("cutting it on a board", ("cutting board",), False),
        ("add 2.5 (or so)", ("(or so)",), True),
        ("anything", (), True),
    ],
)
def test_keywords_are_whole_words_in_any_case(text, keywords, expected) -> None:
    assert holds_keywords(text, keywords) is expected


def test_a_decision_without_words_is_no_utterance(make_transcript) -> None:
    scores = score(make_transcript(20, REFS | {9: "  ", 18: ""}, REFS))
    assert scores["utterance_num_empty"] == 2
    assert scores["utterance_num_redundant"] == 0
    assert scores["utterance_num_missed"] == 1
    assert scores["utterance_precision"] == 1.0


def test_the_answer_to_a_recorded_request_for_a_summary_is_no_utterance() -> None:
    request = (SystemTurn(content=SUMMARY_QUERY), FramesTurn(start=20, end=21))
    conversation = dialogue((*DIALOGUE, *request, AssistantTurn(content="so far")))
    silent = speak_when(conversation, "", lambda _: False)
    said = [*(reference.text for reference in silent.references[:-1]), "so far"]  # as released
    assert [reference.is_summary for reference in silent.references] == [False] * 10 + [True]

    frames = [
        replace(f, speak=bool(text), text=text) for f, text in zip(silent.frames, said, strict=True)
    ]
    as_trained = replace(silent, frames=tuple(frames))
    scores = score(as_trained)
    for key in ("precision", "recall", "f1", "jaccard"):
        assert scores[f"utterance_{key}"] == 1.0, key
    assert scores["utterance_num_redundant"] == 0
    assert assistant_lines(as_trained) == reference_lines(as_trained)


def test_silence_is_perfect_only_where_nothing_is_to_say(make_transcript) -> None:
    silent = score(make_transcript(20))
    assert silent["utterance_f1"] == silent["utterance_jaccard"] == 1.0
    assert silent["utterance_missing_rate"] == silent["utterance_redundant_rate"] == 0.0
    missed = score(make_transcript(20, {}, REFS))
    assert missed["utterance_f1"] == missed["utterance_precision"] == 0.0
    assert missed["utterance_missing_rate"] == 1.0
    assert "utterance_time_difference_s" not in missed
    assert "utterance_semantic_score" not in missed


def test_windows_can_be_given_by_data_set(make_transcript) -> None:
    transcript = make_transcript(20, {13: "boil the water"}, {9: "boil the water"})
    assert score(transcript)["utterance_f1"] == 0.0
    assert score(transcript, windows={"toy": MatchWindow(-2.0, 2.0)})["utterance_f1"] == 1.0


def test_utterance_metrics_merged_equal_the_whole(make_transcript) -> None:
    streams = [
        make_transcript(20, {4: REFS[3], 12: "hm"}, REFS, keywords=KEYWORDS),
        make_transcript(20, {8: REFS[9]}, REFS, keywords=KEYWORDS, fps=3.0),
        make_transcript(20, REFS, {}),
    ]
    whole = score(*streams)
    parts = [UtteranceMetrics(Matcher(HashedWordSimilarity())) for _ in streams]
    for part, stream in zip(parts, streams, strict=True):
        part.update([stream])
    parts[0].merge_state(parts[1])
    parts[0].merge_state(parts[2])
    merged = parts[0].compute()
    assert set(merged) == set(whole)
    for key, value in whole.items():
        torch.testing.assert_close(float(merged[key]), value, atol=1e-12, rtol=1e-12)
