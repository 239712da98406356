from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.judge.asked import MANY, ask, kept
from tests.judge.fakes import FOUR, Reply, completion, error_body, request, serve


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


def test_a_stream_that_is_too_long_fails_alone_however_often_it_is_asked_about(
    tmp_path: Path,
) -> None:
    def answer(prompt: str, _times: int) -> Reply:
        long = Reply(status=400, body=error_body("context length is 8192"))
        return long if prompt.startswith("long") else Reply()

    about = [replace(request(f"long {i}"), stream_id="long") for i in range(6)]
    about += [replace(request(f"short {i}"), stream_id="short") for i in range(3)]
    with serve(answer) as fake:
        tally = ask(about, fake(), tmp_path, concurrency=4)
    assert (tally.stopped, tally.failures, tally.asked.num_answers) == ("", {"HTTP 400": 6}, 3)
    assert len(kept(tmp_path, about)) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_server_that_takes_no_stream_at_all_is_left(tmp_path: Path, status: int) -> None:
    about = [replace(request(f"{i}"), stream_id=f"stream {i // 2}") for i in range(30)]
    with serve(lambda *_: Reply(status=status, body=error_body("no temperature"))) as fake:
        tally = ask(about, fake(), tmp_path)
    assert tally.why_missing()[1:] == [
        f"9 requests failed: HTTP {status}: no temperature",
        "21 not asked any more: 5 failures in a row",
    ]
