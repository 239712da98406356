"""BLEU and CIDEr against numbers made by the reference's own code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.metrics.meteor import Meteor
from proassist_lit.metrics.ptb import tokenize
from proassist_lit.metrics.text import bleu, cider
from tests.parity.numbers import PARITY, needs

pytestmark = needs("matching.json")


@pytest.fixture(scope="module")
def corpora() -> list[dict[str, Any]]:
    return json.loads((PARITY / "matching.json").read_text())["nlg"]


def test_words_are_those_of_the_reference(corpora: list[dict[str, Any]]) -> None:
    found = []
    for corpus in corpora:
        tokenized = zip(corpus["hyp_tokenized"], corpus["refs_tokenized"], strict=True)
        for pair, (hypothesis, references) in zip(corpus["pairs"], tokenized, strict=True):
            theirs = [hypothesis, *references]
            found += zip([pair["hyp"], *pair["refs"]], theirs, strict=True)
    other = [text for text, words in found if tokenize(text) != words.split()]
    assert len(other) <= len(found) / 100, other  # y'all, smileys


def test_bleu_and_cider_equal_the_reference(corpora: list[dict[str, Any]]) -> None:
    checked = 0
    for corpus in corpora:
        if not corpus["scores"]:
            continue
        kept = [
            (hypothesis.split(), [text.split() for text in texts])
            for hypothesis, texts in zip(
                corpus["hyp_tokenized"], corpus["refs_tokenized"], strict=True
            )
            if any(texts)
        ]
        hypotheses, references = [h for h, _ in kept], [r for _, r in kept]
        for order, score in enumerate(bleu(hypotheses, references), 1):
            assert score == pytest.approx(corpus["scores"][f"Bleu_{order}"], abs=1e-6), (
                corpus["name"],
                order,
            )
        expected = corpus["scores"]["CIDEr"]
        assert cider(hypotheses, references) == pytest.approx(expected, abs=1e-6), corpus["name"]
        checked += 1
    assert checked


def test_meteor_equals_the_reference(corpora: list[dict[str, Any]]) -> None:
    try:
        meteor = Meteor()
    except ConfigError as reason:
        pytest.skip(str(reason))
    corpus = next(corpus for corpus in corpora if corpus["scores"])
    kept = [
        (hypothesis, texts)
        for hypothesis, texts in zip(corpus["hyp_tokenized"], corpus["refs_tokenized"], strict=True)
        if any(texts)
    ]
    score = meteor([hypothesis for hypothesis, _ in kept], [texts for _, texts in kept])
    assert score == pytest.approx(corpus["scores"]["METEOR"], abs=1e-6)
