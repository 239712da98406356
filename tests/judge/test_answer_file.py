from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.errors import ConfigError, JudgeError
from proassist_lit.judge.answer import Answer
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.plan import describe_plan
from proassist_lit.judge.request import JudgeSettings, Request, distinct, repeated
from proassist_lit.judge.usage import Prices, Usage
from tests.judge.fakes import SETTINGS, request

ONE, TWO, THREE = (request(text) for text in ("one", "two", "three"))
ANSWER = Answer(
    text="wörter\n", finish_reason="stop", model="m-1", prompt_tokens=1000, completion_tokens=10
)


def keep(path: Path, *requests: Request) -> None:
    with AnswerFile(path).appending() as answers:
        for one in requests:
            answers.add(one, ANSWER)


def test_key_depends_on_everything_that_matters_and_on_nothing_else() -> None:
    others = [
        replace(ONE, messages=(("user", "one "),)),
        replace(ONE, messages=(("system", "one"),)),
        replace(ONE, repeat=1),
        replace(ONE, settings=replace(SETTINGS, model="other")),
        replace(ONE, settings=replace(SETTINGS, server="other")),
        replace(ONE, settings=replace(SETTINGS, temperature=0.5)),
        replace(ONE, settings=replace(SETTINGS, max_tokens=5)),
    ]
    assert len({other.key for other in (ONE, *others)}) == 8
    assert replace(ONE, stream_id="x", settings=replace(SETTINGS, repeats=9)).key == ONE.key
    assert ONE.key == "4537d59617daa63d042202fb251a779f"


def test_repeated_requests_differ_and_equal_ones_are_asked_once() -> None:
    three = repeated("a", (("user", "x"),), replace(SETTINGS, repeats=3))
    assert [one.repeat for one in three] == [0, 1, 2]
    same = repeated("b", (("user", "x"),), replace(SETTINGS, repeats=2))
    assert len(distinct(three + same)) == 3


def test_answers_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    assert ONE not in AnswerFile(path)
    assert not path.exists()
    keep(path, ONE)
    keep(path, TWO)
    answers = AnswerFile(path)
    assert ONE in answers
    assert answers.find([TWO, THREE, ONE]) == [ANSWER, ANSWER]
    assert answers.get(THREE) is None
    assert [json.loads(line)["stream_id"] for line in path.read_text().splitlines()] == [
        "one",
        "two",
    ]


def test_cut_line_costs_its_answer_only(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    keep(path, ONE, TWO)
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]) + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        answers = AnswerFile(path)
        assert ONE in answers
        assert TWO not in answers
    keep(path, THREE)
    assert AnswerFile(path).find([ONE, TWO, THREE]) == [ANSWER] * 2
    assert THREE in AnswerFile(path)
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("line", [b"[1]", b"3", b'{"key": "k"}', b"\xff\xfe", b"", b"null"])
def test_strange_lines_are_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    keep(path, ONE)
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert ONE in AnswerFile(path)


def test_only_one_process_at_a_time_adds(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first, second = AnswerFile(path), AnswerFile(path)
    with first.appending():
        first.add(ONE, ANSWER)
        with pytest.raises(JudgeError, match="another process is adding"), second.appending():
            pass
        assert ONE not in second
    with second.appending():
        assert ONE in second  # read again: the first may have been at work since


def test_file_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(JudgeError, match=r"folder: cannot be read: Is a directory.*again"):
        AnswerFile(tmp_path / "folder")
    answers = AnswerFile(tmp_path / "none" / "answers.jsonl")
    (tmp_path / "none").write_text("")
    with pytest.raises(JudgeError, match="cannot be written"), answers.appending():
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path).appending() as answers:
        path.unlink()
        path.symlink_to("/dev/full")
        with answers._open() as answers._file, pytest.raises(JudgeError, match="No space left"):
            answers.add(ONE, ANSWER)
    assert ONE not in answers


def test_usage_adds_up_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path).appending() as answers:
        answers.add(ONE, ANSWER)
        answers.add(TWO, replace(ANSWER, prompt_tokens=None))
    usage = answers.usage([ONE, ONE, TWO, THREE])
    assert usage == Usage(num_answers=2, num_unknown=1, prompt_tokens=1000, completion_tokens=20)
    assert usage.describe(None) == (
        "1,000 tokens in, 20 out (of 1 answers the server told no tokens)"
    )
    assert ", cost 0.0034 (" in usage.describe(Prices(prompt=3.0, completion=20.0))


def test_plan_counts_what_is_left_to_ask(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_tokens=100, server="h:80/v1")
    requests = [request("x" * 401, settings), request("y" * 400, settings)]
    keep(tmp_path / "answers.jsonl", requests[1])
    answers = AnswerFile(tmp_path / "answers.jsonl")
    prices = Prices(prompt=1e4, completion=1e5)
    assert describe_plan([*requests, requests[0]], answers, settings, prices).splitlines() == [
        "2 streams, 2 requests to fake at h:80/v1: 1 answered already, 1 to ask",
        "about 101 tokens in (4 characters each), at most 100 out",
        "cost: at most about 11.0100",
        "dry run: nothing was asked",
    ]
    assert "cost" not in describe_plan(requests, answers, settings, None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": " "}, "model's name is empty"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        JudgeSettings(**({"model": "m"} | changed))


def test_prices_below_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--price-in 1, --price-out -1: .* at least 0"):
        Prices(prompt=1, completion=-1)
