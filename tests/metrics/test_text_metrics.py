from __future__ import annotations

import math

import pytest
import sacrebleu
from torchmetrics.functional.text.rouge import rouge_score

from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.text import (
    TextPairMetrics,
    bleu,
    cider,
    matched_texts,
    rouge_l,
)
from proassist_lit.types import Transcript


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def test_bleu_by_hand() -> None:
    # 3 of 4 words and 1 of 3 bigrams hit, no trigram; one word shorter than the reference.
    scores = bleu(words("cut the red carrot"), [words("cut the carrot in halves")])
    penalty = math.exp(1 - 5 / 4)
    assert scores[0] == pytest.approx(3 / 4 * penalty, abs=1e-6)
    assert scores[1] == pytest.approx((3 / 4 * 1 / 3) ** 0.5 * penalty, abs=1e-6)
    assert scores[2] < 1e-4


def test_bleu_clips_repeated_words_and_counts_over_the_corpus() -> None:
    # 1 of 3 (clipped) and 1 of 1: 2 of 4 over the corpus, not the mean of 1/3 and 1.
    scores = bleu(words("the the the", "stop"), [words("the pot is"), words("stop")])
    assert scores[0] == pytest.approx(2 / 4, abs=1e-6)


def test_rouge_l_by_hand() -> None:
    # Longest common subsequence "cut carrot": precision 2/4, recall 2/3.
    found = rouge_l(words("cut the red carrot"), [words("cut one carrot")])
    precision, recall, b = 2 / 4, 2 / 3, 1.2**2
    assert found == pytest.approx((1 + b) * precision * recall / (recall + b * precision))
    assert rouge_l(words("a b", "c d"), [words("a b"), words("e f")]) == 0.5
    # In order: "b a" against "a b" has one word in common, not two.
    assert rouge_l(words("b a"), [words("a b")]) == 0.5


CORPUS = (
    ("cut the carrot into thin slices now", "now cut the carrot into very thin slices"),
    ("boil the water in the small pot", "boil the cold water in the small pot"),
    ("serve the soup", "stir the soup and serve it in the bowl"),
)


def test_bleu_equals_sacrebleu() -> None:
    hypotheses, references = (list(side) for side in zip(*CORPUS, strict=True))
    scores = bleu([h.split() for h in hypotheses], [[r.split()] for r in references])
    for order, score in enumerate(scores, 1):
        tool = sacrebleu.metrics.BLEU(
            tokenize="none", smooth_method="none", max_ngram_order=order, force=True
        )
        assert 100 * score == pytest.approx(tool.corpus_score(hypotheses, [references]).score)


def test_rouge_l_is_that_of_torchmetrics_weighted_as_coco_does() -> None:
    for hypothesis, reference in CORPUS:
        found = rouge_score(hypothesis, reference, rouge_keys="rougeL")
        p, r = float(found["rougeL_precision"]), float(found["rougeL_recall"])
        expected = (1 + 1.2**2) * p * r / (r + 1.2**2 * p)
        assert rouge_l([hypothesis.split()], [[reference.split()]]) == pytest.approx(expected)


def test_cider_by_hand() -> None:
    same = words("a b c d e", "f g h i j")
    assert cider(same, [[text] for text in same]) == pytest.approx(10.0)
    # Every word weighs log 2: none stands in both references. No bigram is right, so only order 1
    # counts. First text: one word of two on both sides. Second: the one word, of two.
    first = 1 / (math.sqrt(2) * math.sqrt(2))
    second = 1 / (1 * math.sqrt(2)) * math.exp(-1 / (2 * 6**2))  # no bigram against one
    found = cider(words("b x", "a"), [words("b y"), words("a z")])
    assert found == pytest.approx(10 * (first + second) / 4 / 2)
    # A word that every reference holds weighs nothing, a rare one does.
    found = cider(words("a b", "a c"), [words("a b"), words("a d")])
    assert found == pytest.approx(10 * (1 + 1 + 0 + 0) / 4 / 2)


def test_cider_of_a_text_alone_is_zero() -> None:
    assert cider(words("a b c"), [words("a b c")]) == 0.0


REFS = {3: "slice the carrot", 9: "boil the water now", 15: "serve warm soup"}


def metric_of(*transcripts: Transcript) -> TextPairMetrics:
    metric = TextPairMetrics("utterance")
    metric.update(
        matched_texts(transcripts, Matcher(HashedWordSimilarity()).match_all(transcripts))
    )
    return metric


def score(*transcripts: Transcript) -> dict[str, float]:
    metric = metric_of(*transcripts)
    return {key: float(value) for key, value in metric.compute().items()}


def test_only_matched_pairs_are_scored(make_transcript) -> None:
    gens = {3: "slice the carrot", 9: "good work", 19: "redundant words"}
    scores = score(make_transcript(30, gens, REFS))
    assert scores["utterance_bleu_1"] == pytest.approx(1.0, abs=1e-6)
    assert scores["utterance_rouge_l"] == pytest.approx(1.0)
    assert set(scores) == {
        *(f"utterance_bleu_{n}" for n in range(1, 5)),
        "utterance_rouge_l",
        "utterance_cider",
    }
    assert score(make_transcript(30, {}, REFS)) == {}


def test_order_of_streams_does_not_show_in_the_last_digit(make_transcript) -> None:
    lines = ["cut the thin carrot", "boil the cold water", "serve the warm soup", "stir the pot"]
    streams = []
    for n in range(48):
        ref = f"{lines[n % 4]} {' '.join('abcdefg'[: n % 7])}"
        streams.append(make_transcript(3, {1: f"now {lines[n % 4]} {n % 5}"}, {1: ref}))
    orders = [streams, streams[::-1], streams[1::2] + streams[::2]]
    assert score(*orders[0]) == score(*orders[1]) == score(*orders[2])


def test_text_metrics_merged_equal_the_whole_bit_by_bit(make_transcript) -> None:
    streams = [
        make_transcript(30, {4: "slice the onion", 9: "boil the water"}, REFS),
        make_transcript(30),
        make_transcript(30, {15: "serve the warm soup", 2: "slice der Käse the carrot"}, REFS),
    ]
    parts = [metric_of(stream) for stream in streams]
    parts[2].merge_state(parts[1])
    parts[2].merge_state(parts[0])
    merged = {key: float(value) for key, value in parts[2].compute().items()}
    assert merged == score(*streams)
    assert merged["utterance_cider"] > 0
