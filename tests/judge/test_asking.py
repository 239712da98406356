from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path

import pytest

from proassist_lit.errors import ConfigError, JudgeError
from proassist_lit.judge.answer import Answer
from proassist_lit.judge.answer_file import AnswerFile
from proassist_lit.judge.asking import Tally, ask_all
from proassist_lit.judge.client import JudgeClient, JudgeServer, _retry_after_s
from proassist_lit.judge.request import Request
from proassist_lit.judge.usage import Usage
from tests.judge.fakes import FOUR, Reply, completion, error_body, request, serve

MANY = [request(f"question {i}") for i in range(12)]


def ask(
    requests: Sequence[Request],
    server: JudgeServer,
    path: Path,
    *,
    concurrency: int = 1,
    **options: object,
) -> Tally:
    with AnswerFile(path / "answers.jsonl").appending() as answers:
        return asyncio.run(
            ask_all(requests, server, answers, concurrency=concurrency, **options)  # type: ignore[arg-type]
        )


def kept(path: Path, requests: Sequence[Request]) -> list[Answer]:
    return AnswerFile(path / "answers.jsonl").find(requests)


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


def test_too_many_requests_are_asked_again_after_the_time_named(tmp_path: Path) -> None:
    def answer(_prompt: str, times: int) -> Reply:
        busy = Reply(status=429, headers={"Retry-After": "0.15"}, body=error_body("busy"))
        return busy if times == 0 else Reply()

    with serve(answer) as fake:
        started = time.monotonic()
        tally = ask(MANY[:1], fake(), tmp_path)
        assert time.monotonic() - started >= 0.15
    assert (tally.num_missing, tally.failures) == (0, {})
    assert fake.times_asked.total() == 2


def test_server_that_asks_for_too_long_a_wait_is_not_waited_for(tmp_path: Path) -> None:
    reply = Reply(status=503, headers={"Retry-After": "3600"}, body=error_body("later"))
    with serve(lambda *_: reply) as fake:
        tally = ask(MANY[:1], fake(), tmp_path)
    assert tally.why_missing() == [
        "1 of 1 answers are missing.",
        "1 request failed: HTTP 503: later (asks to wait 3600 s)",
    ]
    assert fake.times_asked.total() == 1


def test_server_that_fails_for_ever_ends_with_cause_and_count(tmp_path: Path) -> None:
    with serve(lambda *_: Reply(status=500, body=error_body("boom\nhere"))) as fake:
        tally = ask(MANY, fake(), tmp_path, concurrency=2)
    assert tally.num_missing == 12
    assert tally.why_missing() == [
        "12 of 12 answers are missing.",
        f"{tally.failures.total()} requests failed: HTTP 500: boom here",
        f"{12 - tally.failures.total()} not asked any more: 5 failures in a row",
    ]
    # Three tries each; one more may be under way when the fifth fails, and gives up early.
    assert tally.failures.total() in (5, 6)
    assert max(fake.times_asked.values()) == 3
    assert kept(tmp_path, MANY) == []


def test_failures_between_answers_are_no_reason_to_give_up(tmp_path: Path) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        return Reply() if prompt == "question 4" else Reply(status=502, body="<html>bad gateway")

    with serve(answer) as fake:
        tally = ask(MANY[:9], fake(max_tries=1), tmp_path)
    assert (tally.num_missing, tally.failures, tally.stopped) == (8, {"HTTP 502": 8}, "")
    assert tally.why_missing()[1:] == ["8 requests failed: HTTP 502: <html>bad gateway"]


@pytest.mark.parametrize("reply", [Reply(stall=True), Reply(drip=True)], ids=["stall", "drip"])
def test_server_that_stalls_is_left_after_the_timeout(tmp_path: Path, reply: Reply) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        return reply if prompt == "question 0" else Reply()

    with serve(answer) as fake:
        tally = ask(MANY[:2], fake(timeout_s=0.2, max_tries=2), tmp_path)
    assert fake.times_asked == {"question 0": 2, "question 1": 1}
    assert tally.why_missing() == [
        "1 of 2 answers are missing.", "1 request failed: no answer within 0.2 s",
    ]  # fmt: skip


def test_half_a_body_is_no_answer_and_asked_again(tmp_path: Path) -> None:
    def answer(_prompt: str, times: int) -> Reply:
        whole = completion()
        return (Reply(send=40), Reply(body=whole[:-30]), Reply())[times]

    with serve(answer) as fake:
        tally = ask(MANY[:1], fake(), tmp_path)
    assert (tally.asked.num_answers, fake.times_asked.total()) == (1, 3)
    assert kept(tmp_path, MANY)[0].text == FOUR


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Reply(send=40), r"the connection failed: .*closed"),
        (Reply(body=completion()[:50]), 'the body is not a whole chat completion: {"id": '),
        (Reply(body="It is fine."), "the body is not a whole chat completion: It is fine"),
    ],
)
def test_nothing_but_half_bodies_ends_with_the_cause(
    tmp_path: Path, reply: Reply, cause: str
) -> None:
    with serve(lambda *_: reply) as fake:
        tally = ask(MANY[:1], fake(), tmp_path)
    assert tally.num_missing == 1
    assert re.search(cause, tally.why_missing()[1])
    assert fake.times_asked.total() == 3


def test_server_that_is_not_there_ends_with_the_cause(tmp_path: Path) -> None:
    with serve() as fake:
        pass
    tally = ask(MANY[:1], fake(), tmp_path)
    assert tally.why_missing()[1].startswith("1 request failed: the connection failed: ")


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


@pytest.mark.parametrize(
    ("status", "fields"),
    [(401, {}), (403, {}), (404, {}), (429, {"code": "insufficient_quota"})],
)
def test_refusal_for_good_stops_everything_and_keeps_the_key_secret(
    tmp_path: Path, status: int, fields: dict
) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        refusal = Reply(status=status, body=error_body("Not with key sk-123.", **fields))
        return Reply() if prompt == "question 0" else refusal

    with serve(answer) as fake:
        tally = ask(MANY, fake(key="sk-123"), tmp_path)
    assert fake.times_asked.total() == 2
    assert tally.why_missing() == [
        "11 of 12 answers are missing.",
        f"1 request failed: HTTP {status}: Not with key [key].",
        "10 not asked any more: the server refuses",
    ]
    assert len(kept(tmp_path, MANY)) == 1


def test_refusal_ends_the_waits_of_others(tmp_path: Path) -> None:
    waiting = threading.Event()

    def answer(prompt: str, _times: int) -> Reply:
        if prompt == "question 0":
            waiting.set()
            return Reply(status=500, body=error_body("boom"))
        assert waiting.wait(30)
        return Reply(status=401, body=error_body("bad key"))

    with serve(answer) as fake:
        started = time.monotonic()
        tally = ask(MANY, fake(backoff_s=50, max_wait_s=50), tmp_path, concurrency=2)
        assert time.monotonic() - started < 20
    assert tally.failures == {"HTTP 500": 1, "HTTP 401": 1}
    assert fake.times_asked.total() == 2


def test_request_that_is_too_long_fails_alone_and_at_once(tmp_path: Path) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        long = Reply(status=400, body=error_body("context length is 8192"))
        return long if prompt == "question 1" else Reply()

    with serve(answer) as fake:
        tally = ask(MANY[:3], fake(), tmp_path)
    assert tally.why_missing()[1:] == ["1 request failed: HTTP 400: context length is 8192"]
    assert set(fake.times_asked.values()) == {1}


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


def test_wait_named_by_a_date_is_read() -> None:
    said = _retry_after_s({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert said is not None
    assert 98 < said <= 100
    assert _retry_after_s({"retry-after": "7"}) == 7
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "inf"}):
        assert _retry_after_s(nothing) is None


def test_waits_grow_and_differ_and_end() -> None:
    client = JudgeClient(JudgeServer(base_url="http://h/v1", backoff_s=1, max_wait_s=10))
    for tries, top_s in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (5000, 10)):
        drawn = {client._wait_s(tries, None) for _ in range(20)}
        assert len(drawn) > 1
        assert all(top_s / 2 <= wait_s <= top_s for wait_s in drawn if wait_s is not None)
    named_s = client._wait_s(1, 9.0)
    assert named_s is not None
    assert 9 < named_s <= 9.25
    assert client._wait_s(1, 11.0) is None
    asyncio.run(client.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"timeout_s": float("inf")}, "timeout_s must be above 0"),
        ({"max_tries": 0}, "max_tries must be at least 1"),
        ({"base_url": "localhost:8000/v1"}, "no address of a server; give one like http://"),
        ({"base_url": "http://"}, "no address of a server"),
        ({"base_url": "http://host:port/v1"}, "no address of a server"),
        ({"base_url": "ftp://host/v1"}, "no address of a server"),
    ],
)
def test_server_settings_out_of_range_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        JudgeServer(**({"base_url": None} | changed))


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError, match=r"is not installed; pip install openai"):
        JudgeClient(JudgeServer(base_url=None))
