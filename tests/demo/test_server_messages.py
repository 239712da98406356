"""Messages that are wrong, too large, too many, or too late are refused."""

from __future__ import annotations

import itertools

import pytest

from proassist_lit.demo.limits import Limits
from proassist_lit.demo.messages import CLOSE_CODES

from .servers import Client, jpeg, serving


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no json", "malformed"),
        ("[]", "malformed"),
        ("[" * 4000, "malformed"),
        ('{"type": "dance"}', "malformed"),
        ('{"type": "hello"}', "malformed"),
        ('{"type": "say", "text": 3}', "malformed"),
        ('{"type": "say", "text": "\\ud800"}', "malformed"),
        ('{"type": "thresholds", "speak": NaN, "dst": 0}', "malformed"),
        ('{"type": "thresholds", "speak": 0, "dst": 2}', "malformed"),
        ('{"type": "thresholds", "speak": "0.5", "dst": 0}', "malformed"),
        ('{"type": "thresholds", "speak": true, "dst": 0}', "malformed"),
        ('{"type": "thresholds", "speak": 0, "dst": true}', "malformed"),
        ('{"type": "thresholds", "speak": 1%s, "dst": 0}' % ("0" * 400), "malformed"),
        ('{"type": "say", "text": "%s"}' % ("x" * 5000), "too_large"),
        (b"", "malformed"),
        (b"\0\0\0", "malformed"),
        (b"\0\0\0\1GIF89a", "malformed"),
        (b"\0\0\0\1" + b"\xff\xd8\xff\xe0" + bytes(50), "malformed"),
        (b"\0\0\0\1" + jpeg(size=(4000, 8)), "too_large"),
        (b"\0\0\0\1" + jpeg() + bytes(20_000), "too_large"),
    ],
    ids=itertools.count(),
)
def test_messages_that_are_wrong_are_refused(message: str | bytes, reason: str) -> None:
    with serving(limits=Limits(max_frame_kib=16)) as served, served.client() as client:
        client.socket.send(message)
        refused = client.receive()
        assert (refused["type"], refused["reason"]) == ("refused", reason)
        assert client.close_code() == CLOSE_CODES[reason]
        with served.client(session=client.welcome["session"]) as again:  # the session is alive
            assert again.welcome["resumed"]
            assert again.watch(0)[0]["frame"] == 0


def test_a_message_beyond_all_bounds_is_not_even_read() -> None:
    with serving(limits=Limits(max_frame_kib=16)) as served:
        with served.client() as client:
            client.socket.send(bytes(1_000_000))
            assert client.close_code() == 1009
        with served.client() as other:
            assert other.watch(0)[0]["frame"] == 0


def test_frames_do_not_go_back_in_time() -> None:
    with serving() as served, served.client() as client:
        client.watch(3)
        client.frame(3)
        assert client.receive()["message"] == "expected frame 4 or a later one"
        assert client.close_code() == CLOSE_CODES["malformed"]


def test_words_that_are_too_many_are_refused_and_the_session_goes_on() -> None:
    limits = Limits(max_waiting_words=2)
    with serving(limits=limits) as served, served.client() as client:
        client.send({"type": "say", "text": "x" * 401})
        assert client.receive()["reason"] == "too_many_words"
        for words in ("one", "two", "three"):
            client.send({"type": "say", "text": words})
        assert client.receive()["reason"] == "too_many_words"
        assert client.watch(0)[0]["user"] == "one two"


def test_a_damaged_picture_is_told_and_costs_no_words() -> None:
    whole = jpeg(size=(400, 400))
    with serving() as served, served.client() as client:
        client.send({"type": "say", "text": "how many"})
        client.frame(0, whole[: len(whole) // 2])
        assert client.receive()["reason"] == "bad_frame"
        answer = client.watch(1)[0]
        assert (answer["frame"], answer["user"]) == (1, "how many")


def test_a_connection_must_say_hello_in_time_and_first() -> None:
    with serving(limits=Limits(hello_s=0.05)) as served:
        with Client(served) as silent:
            assert silent.receive()["reason"] == "hello"
            assert silent.close_code() == CLOSE_CODES["hello"]
        for first in ('{"type": "bye"}', b"\0\0\0\0" + jpeg(), "nonsense"):
            with Client(served) as rude:
                rude.socket.send(first)
                assert rude.receive()["reason"] == "malformed"
        with served.client(task="no such") as client:
            assert client.welcome["reason"] == "unknown_task"
        assert len(served.sessions) == 0
