from __future__ import annotations

import asyncio
import sys
import time
from email.utils import formatdate

import pytest

from proassist_lit.errors import ConfigError, JudgeError
from proassist_lit.judge.client import JudgeClient, JudgeServer, _retry_after_s, address


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


def test_address_is_that_of_the_server_however_it_is_written() -> None:
    assert address(None) == address("https://API.openai.com:443/v1/") == "api.openai.com:443/v1"
    assert address("http://me:secret@localhost/v1") == "localhost:80/v1"
    several = ("http://h/v1", "https://h/v1", "http://h:8000/v1", "http://h/a/v1", "http://i/v1")
    assert len({address(one) for one in several}) == 5


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(JudgeError, match=r"is not installed; pip install openai"):
        JudgeClient(JudgeServer(base_url=None))
