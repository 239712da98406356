from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from proassist_lit.errors import JudgeError
from proassist_lit.judge.answer import Answer
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.asking import ask_all
from proassist_lit.judge.client import JudgeServer
from proassist_lit.judge.usage import Usage
from tests.judge.asked import MANY, ask, kept
from tests.judge.fakes import FOUR, Reply, completion, error_body, serve


def test_every_request_is_asked_once_and_kept(tmp_path: Path) -> None:
    with serve() as fake:
        tally = ask([*MANY, MANY[0]], fake(key="secret"), tmp_path, concurrency=3)
        assert tally.asked == Usage(num_answers=12, prompt_tokens=1200, completion_tokens=120)
        assert tally.num_missing == 0
        again = ask(MANY, fake(), tmp_path)
    assert (again.num_kept, again.asked.num_answers, again.num_missing) == (12, 0, 0)
    assert fake.times_asked == {f"question {i}": 1 for i in range(12)}
    assert fake.paths == {"/v1/chat/completions"}
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer secret"}
    assert fake.asked[0] == {
        "model": "fake", "temperature": 1.0, "max_tokens": 4096,
        "messages": [{"role": "user", "content": fake.asked[0]["messages"][0]["content"]}],
    }  # fmt: skip
    expected = Answer(
        text=FOUR, finish_reason="stop", model="fake-1", prompt_tokens=100, completion_tokens=10
    )
    assert kept(tmp_path, MANY) == [expected] * 12


def test_no_more_than_allowed_are_under_way_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(3)  # goes on only when three wait at it together

    def answer(prompt: str, _times: int) -> Reply:
        barrier.wait(timeout=30)
        return Reply()

    with serve(answer) as fake:
        assert ask(MANY, fake(timeout_s=30), tmp_path, concurrency=3).num_missing == 0
    assert fake.most_at_once == 3


@pytest.mark.parametrize(
    "answer",
    [
        Reply(body=completion("I like it.")),
        Reply(body=completion(FOUR[:20], finish_reason="length")),
        Reply(body=completion(choices=[])),
    ],
)
def test_nonsense_was_paid_for_and_is_not_asked_again(tmp_path: Path, answer: Reply) -> None:
    with serve(lambda *_: answer) as fake:
        for _ in range(2):
            assert ask(MANY[:1], fake(), tmp_path).num_missing == 0
    assert fake.times_asked.total() == 1


def test_model_that_refuses_max_tokens_is_given_its_other_name(tmp_path: Path) -> None:
    with serve() as fake:

        def answer(*_: object) -> Reply:
            if "max_tokens" in fake.asked[-1]:
                said = "Unsupported parameter: use 'max_completion_tokens' instead."
                return Reply(status=400, body=error_body(said, code="unsupported_parameter"))
            return Reply()

        fake.answerer = answer
        assert ask(MANY[:3], fake(), tmp_path).num_missing == 0
    assert fake.times_asked.total() == 4
    assert fake.asked[-1]["max_completion_tokens"] == 4096


def test_requests_under_way_when_max_tokens_is_refused_are_asked_again(tmp_path: Path) -> None:
    all_under_way = threading.Barrier(4)

    def answer(_prompt: str, times: int) -> Reply:
        if times:
            return Reply()
        all_under_way.wait(30)
        return Reply(status=400, body=error_body("use 'max_completion_tokens' instead"))

    with serve(answer) as fake:
        assert ask(MANY[:4], fake(), tmp_path, concurrency=4).num_missing == 0
    assert set(fake.times_asked.values()) == {2}


def test_cancelled_asking_waits_for_answers_that_are_paid_for(tmp_path: Path) -> None:
    go_on = threading.Event()

    def answer(*_: object) -> Reply:
        assert go_on.wait(30)
        return Reply()

    async def cancel(server: JudgeServer, answers: AnswerFile) -> None:
        seen = asyncio.Event()
        task = asyncio.create_task(
            ask_all(
                MANY, server, answers, concurrency=2,
                on_change=lambda t: (seen.set, go_on.set)[t.stopped == "interrupted"](),
            )
        )  # fmt: skip
        await seen.wait()
        while len(fake.asked) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serve(answer) as fake, AnswerFile(tmp_path / "answers.jsonl").appending() as answers:
        asyncio.run(cancel(fake(timeout_s=30), answers))
    assert len(kept(tmp_path, MANY)) == fake.times_asked.total() == 2


def test_answer_that_cannot_be_kept_stops_the_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def full(*_: object) -> None:
        failed.set()
        raise JudgeError("the disk is full")

    monkeypatch.setattr(AnswerFile, "add", full)

    def answer(prompt: str, _times: int) -> Reply:
        if prompt == "question 0":
            return Reply()
        assert failed.wait(30)
        return Reply(status=400, body=error_body("no"))

    with serve(answer) as fake, pytest.raises(JudgeError, match="the disk is full"):
        ask(MANY, fake(timeout_s=30), tmp_path, concurrency=2)
    # What was under way beside it ends too, though nothing of that was to be kept.
    assert fake.times_asked.total() == 2
