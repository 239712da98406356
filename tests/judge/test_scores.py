from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from proassist_lit.errors import JudgeError
from proassist_lit.judge.answer import Answer
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.result_file import ResultFile
from proassist_lit.judge.scores import SplitScores, score_requests, score_streams
from proassist_lit.judge.usage import Usage
from proassist_lit.report.judge_table import score_table
from tests.judge.fakes import SETTINGS, transcript

THREE = replace(SETTINGS, repeats=3)
STREAMS = [transcript("a", said={1: "one"}), transcript("b", said={1: "two"}), transcript("c")]


def answer(*scores: float) -> Answer:
    names = ("correctness", "promptness", "efficiency", "overall")
    text = json.dumps(dict(zip(names, scores, strict=True)))
    return Answer(text=text, prompt_tokens=10, completion_tokens=1)


def score(path: Path, answers: dict[str, Sequence[Answer | None]]) -> SplitScores:
    """Scores where the repeats of each stream are answered so; None is missing."""
    requests = score_requests(STREAMS, THREE)
    with AnswerFile(path / "answers.jsonl").appending() as file:
        for name, given in answers.items():
            for request, one in zip(requests[name], given, strict=True):
                if one is not None:
                    file.add(request, one)
        return score_streams(requests, file, THREE)


def test_scores_are_means_of_repeats_then_of_streams(tmp_path: Path) -> None:
    scores = score(
        tmp_path,
        {
            "a": (answer(1, 2, 3, 4), answer(2, 2, 3, 4), answer(3, 2, 3, 5)),
            "b": (answer(5, 1, 1, 1), Answer(text="?"), None),
            "c": (None, Answer(text=""), Answer(text="?")),
        },
    )
    # Stream b counts as much as a, although fewer of its answers could be read; c has none.
    assert scores.metrics() == pytest.approx(
        {
            "correctness": (2 + 5) / 2, "promptness": 1.5, "efficiency": 2.0,
            "overall": (13 / 3 + 1) / 2, "num_streams": 2, "num_unreadable": 3, "num_missing": 2,
            "model": "fake",
        }
    )  # fmt: skip
    assert scores.unreadable == {"no JSON object with the aspects": 2, "the answer is empty": 1}
    assert scores.usage == Usage(
        num_answers=7, num_unknown=3, prompt_tokens=40, completion_tokens=4
    )
    told = json.loads(json.dumps(scores.to_json()))
    assert told["streams"]["b"]["overall"] == 1.0
    assert told["streams"]["c"]["overall"] is None
    assert told["streams"]["c"]["num_missing"] == 1
    assert (told["model"], told["repeats"], told["temperature"]) == ("fake", 3, 1.0)


def test_scores_without_an_answer_have_no_means(tmp_path: Path) -> None:
    scores = score(tmp_path, {})
    assert scores.metrics() == {
        "num_streams": 0, "num_unreadable": 0, "num_missing": 9, "model": "fake",
    }  # fmt: skip
    assert table(scores).split("overall")[1].split() == ["-", "-"]


def test_streams_of_equal_dialogues_share_an_answer(tmp_path: Path) -> None:
    twins = [transcript("a", said={1: "one"}), transcript("z", said={1: "one"})]
    requests = score_requests(twins, SETTINGS)
    with AnswerFile(tmp_path / "answers.jsonl").appending() as file:
        file.add(requests["a"][0], answer(1, 2, 3, 4))
        scores = score_streams(requests, file, SETTINGS)
    assert (scores.num_judged, scores.num_missing, scores.usage.num_answers) == (2, 0, 1)


def table(scores: SplitScores) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(score_table("test", scores))
    return captured.get()


def test_table_shows_means_and_the_worst_stream(tmp_path: Path) -> None:
    correctness = {"a": 4, "b": 1, "c": 3}
    shown = table(score(tmp_path, {n: [answer(k, 2, 3, 4)] * 3 for n, k in correctness.items()}))
    assert "test, judged by fake: 3 streams, scores 1 to 5" in shown
    assert shown.split("correctness")[1].split()[:3] == ["2.67", "1.00", "b"]


def test_result_file_keeps_what_it_is_not_told_to_change(tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    ResultFile(path).write_scores("val", {"overall": 1})
    ResultFile(path).write_comparison(Path("../b"), "test", {"wins": 2})
    ResultFile(path).write_scores("test", {"overall": 3})
    ResultFile(path).write_comparison(Path("../c"), "test", {"wins": 4})
    ResultFile(path).write_scores("test", {"overall": 5})
    assert json.loads(path.read_text()) == {
        "scores": {"val": {"overall": 1}, "test": {"overall": 5}},
        "against": {"../b": {"test": {"wins": 2}}, "../c": {"test": {"wins": 4}}},
    }


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read"), ("[]", "holds no object")])
def test_result_file_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "judge.json").write_text(text)
    with pytest.raises(JudgeError, match=rf"judge\.json: {said}.*; move it away"):
        ResultFile(tmp_path / "judge.json")
