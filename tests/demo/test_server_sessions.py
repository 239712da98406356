"""Sessions that are lost, go on, and end."""

from __future__ import annotations

import time

import pytest

from proassist_lit.demo.limits import Limits
from proassist_lit.demo.messages import CLOSE_CODES, Refusal

from .servers import UPDATES, serving, stall_at, tiny_assistant, wait_until


def test_a_lost_session_goes_on_where_it_was() -> None:
    with serving(tiny_assistant(0.0, 0.0)) as served:
        with served.client() as client:
            before = client.watch(0, 1)
            session = client.welcome["session"]
        with served.client(session=session) as again:
            welcome = again.welcome
            assert (welcome["resumed"], welcome["session"]) == (True, session)
            assert [e["text"] for e in welcome["history"]] == [a["text"] for a in before]
            assert welcome["state"] == before[-1]["state"]
            assert welcome["next_frame"] == 2
            assert again.watch(2)[0]["updates"] == [UPDATES[2]]
            assert len(served.sessions) == 1
            with served.client(session=session) as third:  # before the loss was noticed
                assert third.welcome["resumed"]
                assert again.receive()["reason"] == "replaced"
                assert again.close_code() == CLOSE_CODES["replaced"]
                assert third.watch(3)[0]["frame"] == 3
        with served.client(session="x" * len(session)) as stranger:
            assert not stranger.welcome["resumed"]
            assert stranger.welcome["session"] != session
            assert stranger.welcome["history"] == []


def test_a_connection_that_stalls_takes_no_answers_from_the_one_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goes_on = stall_at(monkeypatch, "one", "two")
    with serving() as served, served.client() as client:
        (entry,) = served.sessions._entries.values()
        entry.viewer.tell({"text": "one"})
        wait_until(lambda: not entry.viewer._answers)
        with served.client(session=client.welcome["session"]) as again:
            entry.viewer.tell({"text": "two"})
            wait_until(lambda: not entry.viewer._answers)
            entry.viewer.tell({"text": "three"})
            again.send({"type": "bye"})  # an end changes nothing: its answers are told before it
            wait_until(lambda: len(served.sessions) == 0)
            goes_on["one"].set()
            assert client.receive() == {"text": "one"}
            assert client.receive()["reason"] == "replaced"
            goes_on["two"].set()
            assert [again.receive().get("text") for _ in range(2)] == ["two", "three"]
            assert again.receive()["reason"] == "over"


def test_a_session_that_ended_while_its_client_was_away_tells_why_and_frees_its_place() -> None:
    with serving(tiny_assistant(0.0, 0.0)) as served:
        with served.client() as client:
            before = client.watch(0)
            (entry,) = served.sessions._entries.values()
        wait_until(lambda: entry.lost_s is not None)
        entry.viewer.end(Refusal("over", "the context is full"))  # by a frame that was on its way
        with served.client(session=client.welcome["session"]) as again:
            assert again.welcome["resumed"]
            assert again.welcome["history"] == before
            assert again.receive(timeout=2)["message"] == "the context is full"
            assert again.close_code() == CLOSE_CODES["over"]
        wait_until(lambda: len(served.sessions) == 0)


def test_a_session_ends_when_its_client_stays_away_or_says_so() -> None:
    with serving(limits=Limits(max_sessions=1, keep_s=0.0)) as served:
        with served.client() as client:
            client.watch(0)
            with served.client() as second:
                assert second.welcome["reason"] == "full"
                assert second.close_code() == CLOSE_CODES["full"]
        with served.client() as third:  # the first one's place: it is not kept
            assert third.welcome["type"] == "welcome"
            third.send({"type": "bye"})
            assert third.receive()["reason"] == "over"
            assert third.close_code() == CLOSE_CODES["over"]
        assert len(served.sessions) == 0


def test_a_session_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proassist_lit.demo.server._SWEEP_S", 0.01)
    with serving(limits=Limits(max_minutes=0.05)) as served, served.client() as client:
        served.sessions._now = lambda: time.monotonic() + 4
        assert client.receive()["message"] == "a session lasts 0.05 minutes"
        assert client.close_code() == CLOSE_CODES["over"]
