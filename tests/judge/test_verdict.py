from __future__ import annotations

import json

import pytest

from proassist_lit.judge.answer import Answer, read_body
from proassist_lit.judge.prompt import ASPECTS
from proassist_lit.judge.verdict import UnreadableError, read_all, read_choices, read_scores
from tests.judge.fakes import FOUR, completion

VALUES = {"correctness": 4.0, "promptness": 3.0, "efficiency": 5.0, "overall": 2.0}
LOW = FOUR.replace("4", "1").replace("3", "1").replace("5", "1").replace("2", "1")


def four(**changed: object) -> str:
    return json.dumps(VALUES | changed)


@pytest.mark.parametrize(
    "text",
    [
        FOUR,
        f"Line 1 is fine {{see there}}.\n\nSo:\n```json\n{FOUR}\n```\n",
        f"{LOW} - no, on second thoughts {FOUR} (I mean it)",
        f"{FOUR}\n{{}} {{'note': 1}} {{\"other\": 1}}",
        f'{{"scores": {FOUR}, "note": "ok"}}',
        f'<think>perhaps {{"correctness": 1</think>{FOUR}',
        FOUR.replace('"overall"', '" Overall"').replace("2", '"2"'),
        four(note="{"),
    ],
)
def test_scores_are_those_of_the_last_verdict(text: str) -> None:
    assert read_scores(Answer(text=text, finish_reason="stop")) == VALUES
    assert read_scores(Answer(text=text)) == VALUES  # a server that says no reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        (" \n", "the answer is empty"),
        ("All fine, 5 of 5.", "no JSON object"),
        ("[4, 3, 5, 2]", "no JSON object"),
        ('{"note": 3}', "no JSON object"),
        (FOUR[:-1], "is missing"),
        (f'{FOUR} or rather {{"correctness": 3, "prom', "is missing"),
        (f'{FOUR} or rather {{"correctness": 3}}', "promptness is missing"),
        ('{"correctness": 4, "promptness": 3, "efficiency": 5}', "overall is missing"),
        (four(overall=0), "overall has no valid value"),
        (four(overall=6), "overall has no valid value"),
        (four(overall=5.01), "overall has no valid value"),
        (four(overall=None), "overall has no valid value"),
        (four(overall=True), "overall has no valid value"),
        (four(overall="good"), "overall has no valid value"),
        (four(overall="4/5"), "overall has no valid value"),
        (four(overall=[4]), "overall has no valid value"),
        (four(overall=float("nan")), "overall has no valid value"),
        (four(overall=10**400), "overall has no valid value"),
        ("{ " * 100_000, "no JSON object"),
        ('{"correctness":' * 2_000, "is missing"),
    ],
)
def test_answers_that_cannot_be_read_are_not_guessed(text: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        read_scores(Answer(text=text, finish_reason="stop"))


@pytest.mark.parametrize("finish_reason", ["length", "content_filter"])
def test_answer_that_ended_early_is_unreadable_whatever_it_holds(finish_reason: str) -> None:
    with pytest.raises(UnreadableError, match=f"ended early \\({finish_reason}\\)"):
        read_scores(Answer(text=FOUR, finish_reason=finish_reason))


def test_choices_are_a_b_or_tie() -> None:
    text = '{"correctness": "A", "promptness": "b", "efficiency": " TIE", "overall": "%s"}'
    assert read_choices(Answer(text=text % "B")) == dict(
        zip(ASPECTS, ("A", "B", "tie", "B"), strict=True)
    )
    for bad in ("C", "A|B|tie", "", "Assistant A"):
        with pytest.raises(UnreadableError, match="overall has no valid value"):
            read_choices(Answer(text=text % bad))
    with pytest.raises(UnreadableError, match="correctness has no valid value"):
        read_choices(Answer(text=FOUR))


def test_read_all_keeps_verdicts_and_reasons() -> None:
    answers = [Answer(text=FOUR), Answer(text=""), Answer(text=LOW)]
    verdicts, unreadable = read_all(answers, read_scores)
    assert verdicts == (VALUES, dict.fromkeys(ASPECTS, 1.0))
    assert unreadable == ("the answer is empty",)


def test_body_of_a_completion_is_an_answer() -> None:
    assert read_body(completion("words", finish_reason="length")) == Answer(
        text="words", finish_reason="length", model="fake-1",
        prompt_tokens=100, completion_tokens=10,
    )  # fmt: skip
    assert read_body(completion(usage=None, model=None)) == Answer(text=FOUR, finish_reason="stop")


def test_body_of_a_refusal_is_an_empty_answer() -> None:
    refusal = [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]
    for choices in (refusal, [], [None], [{}], [{"message": "text"}]):
        answer = read_body(completion(choices=choices))
        assert answer is not None
        assert (answer.text, answer.prompt_tokens) == ("", 100)


@pytest.mark.parametrize("body", ["", "<html>", "[]", "{}", '{"choices": 3}', completion()[:-9]])
def test_body_that_is_no_whole_completion_is_none(body: str) -> None:
    assert read_body(body) is None
