from __future__ import annotations

from itertools import permutations

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from proassist_lit.metrics.kinds import UtteranceKindMetrics
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.types import Transcript

REFS = {2: "now slice the carrot", 8: "stop take the knife", 14: "well done now boil water"}
KINDS = {2: ("initiative", "instruction"), 8: ("correction",), 14: ("feedback", "instruction")}
SIMILARITY = HashedWordSimilarity()


def scores(*transcripts: Transcript) -> dict[str, float]:
    metric = UtteranceKindMetrics(SIMILARITY)
    metric.update(transcripts, Matcher(SIMILARITY).match_all(transcripts))
    return {key: float(value) for key, value in metric.compute().items()}


def test_perfect_streams_have_every_kind(make_transcript) -> None:
    values = scores(make_transcript(20, REFS, REFS, kinds=KINDS))
    nums = {"instruction": 2.0, "feedback": 1.0, "correction": 1.0}
    shares = {f"{k}_{name}": 1.0 for k in nums for name in ("precision", "recall", "f1")}
    assert values == shares | {f"utterance_num_{kind}": num for kind, num in nums.items()}


def test_a_correction_is_given_at_the_mistake_whatever_it_says_of_it(make_transcript) -> None:
    at_the_mistake = REFS | {8: "stop take the spoon"}
    values = scores(make_transcript(20, at_the_mistake, REFS, kinds=KINDS))
    assert (values["correction_precision"], values["correction_recall"]) == (1.0, 1.0)

    too_late = {2: REFS[2], 14: REFS[14], 18: "stop take the knife"}
    values = scores(make_transcript(20, too_late, REFS, kinds=KINDS))
    assert (values["correction_precision"], values["correction_recall"]) == (0.0, 0.0)

    something_else = REFS | {8: "now slice the carrot"}
    values = scores(make_transcript(20, something_else, REFS, kinds=KINDS))
    assert (values["correction_precision"], values["correction_recall"]) == (0.0, 0.0)
    assert (values["instruction_precision"], values["instruction_recall"]) == (2 / 3, 1.0)


def test_no_correction_is_false_where_nobody_knows(make_transcript) -> None:
    extra = REFS | {18: "stop take the knife"}
    values = scores(make_transcript(20, extra, REFS, kinds=KINDS, unsupervised=[18]))
    assert values["correction_precision"] == 1


def test_false_corrections_cost_precision_also_where_a_stream_has_no_mistake(
    make_transcript,
) -> None:
    faultless = {2: REFS[2], 14: REFS[14]}
    streams = [
        make_transcript(20, REFS, REFS, kinds=KINDS),
        make_transcript(20, {**faultless, 8: "stop take the knife"}, faultless, kinds=KINDS),
    ]
    values = scores(*streams)
    assert (values["correction_precision"], values["correction_recall"]) == (0.5, 1.0)
    assert values["correction_f1"] == pytest.approx(2 / 3)
    # What is most like it lies in the other stream, so that the order and the parts do not matter.
    metric = UtteranceKindMetrics(SIMILARITY)
    for stream in reversed(streams):
        metric.update([stream], Matcher(SIMILARITY).match_all([stream]))
    assert {key: float(value) for key, value in metric.compute().items()} == values


def test_the_same_words_are_of_the_kind_that_belongs_there(make_transcript) -> None:
    refs = {2: "take the knife", 8: "take the knife"}
    kinds = {2: ("instruction",), 8: ("correction",)}
    values = scores(make_transcript(12, refs, refs, kinds=kinds))
    assert values["instruction_f1"] == values["correction_f1"] == 1.0


def test_words_that_are_several_kinds_are_of_all_of_them_in_any_order(make_transcript) -> None:
    okay = {2: "okay", 8: REFS[8]}
    streams = [
        make_transcript(12, okay, okay, kinds={2: ("feedback",)}),
        make_transcript(12, okay, okay, kinds={2: ("correction",)}),
        make_transcript(12, okay | {11: "okay"}, okay, kinds={2: ("instruction",)}),
    ]
    values = scores(*streams)
    assert [values[f"{k}_precision"] for k in ("feedback", "correction", "instruction")] == [
        0.5
    ] * 3
    for order in permutations(streams):
        assert scores(*order) == values


def test_what_is_like_nothing_is_of_no_kind(make_transcript) -> None:
    values = scores(make_transcript(20, {8: "qqq zzz"}, REFS, kinds=KINDS))
    assert values["correction_precision"] == values["correction_recall"] == 0.0


def test_a_silent_assistant_gives_nothing(make_transcript) -> None:
    values = scores(make_transcript(20, {}, REFS, kinds=KINDS))
    assert values["correction_recall"] == values["correction_f1"] == 0.0
    assert values["utterance_num_correction"] == 1.0


class Products(TorchDispatchMode):
    """Counts matrix products."""

    num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += func.name() == "aten::mm"
        return func(*args, **(kwargs or {}))


def test_without_kinds_no_text_is_compared_with_all_others(make_transcript) -> None:
    found = []
    for kinds in (KINDS, {}):
        with Products() as products:
            scores(make_transcript(20, REFS, REFS, kinds=kinds))
        found.append(products.num)
    assert found == [2, 0]  # with likeness, and of kinds


def test_without_references_or_kinds_there_is_nothing_to_tell(make_transcript) -> None:
    assert scores(make_transcript(5, {2: "hello"}, {})) == {}
    assert scores(make_transcript(20, REFS, REFS)) == {}
