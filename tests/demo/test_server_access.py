"""Who may connect, from which page and by which address, and what is served to them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from proassist_lit.demo.access import Access
from proassist_lit.demo.limits import Limits
from proassist_lit.errors import ConfigError

from .servers import Client, serving

TOKEN = "a token of twenty-four c"


def get(url: str, **headers: str) -> tuple[int, str, Any]:
    """Status, body and headers."""
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.read().decode(), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


@pytest.mark.parametrize("hello", [{}, {"token": "wrong"}, {"token": "\ud800"}, {"token": 3}])
def test_without_the_token_nothing_is_told(hello: dict[str, Any]) -> None:
    with serving(token=TOKEN) as served:
        with Client(served, hello) as client:
            assert client.welcome["reason"] in ("token", "malformed")
            assert client.close_code() in (4401, 4400)
        status, body, _ = get(f"{served.url}/about", Authorization=f"Bearer {TOKEN}x")
        assert (status, body) == (401, '{"reason":"token"}')
        status, body, _ = get(f"{served.url}/about", Authorization=f"Bearer {TOKEN}")
        assert (status, json.loads(body)["tasks"]) == (200, {"soup": 2, "none": 0})
        with served.client(token=TOKEN) as client:
            assert client.welcome["type"] == "welcome"
        with served.client(token="wrong", session=client.welcome["session"]) as thief:
            assert thief.welcome["reason"] == "token"


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:{port}", "https://demo.example.org"])
def test_pages_of_ours_may_connect(origin: str | None) -> None:
    with serving(origins=["https://demo.example.org"], token=TOKEN) as served:
        origin = origin and origin.format(port=served.port)
        with Client(served, {"token": TOKEN}, origin=origin) as client:
            assert client.welcome["type"] == "welcome"


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null"])
def test_pages_of_others_are_refused(origin: str) -> None:
    with serving() as served:
        with pytest.raises(InvalidStatus) as refused:
            Client(served, origin=origin)
        assert refused.value.response.status_code == 403
        assert refused.value.response.body == b'{"reason":"origin"}'
        status, body, _ = get(f"{served.url}/", Host=f"evil.example:{served.port}")
        assert status == 403
        assert "start it with --origin http://" in json.loads(body)["message"]


def test_a_tunnel_of_ones_own_needs_no_token() -> None:
    with serving(origins=["http://localhost:9000"]) as served:
        assert get(f"{served.url}/about", Host="localhost:9000")[0] == 200


def test_a_name_that_leads_to_loopback_is_no_name_of_ours() -> None:
    ours = Access(port=8000, origins=["https://demo.example.org"], token=TOKEN)
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000", "demo.example.org"):
        assert ours.allows(f"http://{host}", host)
        assert ours.allows(None, host)
        assert not ours.allows("http://evil.example:8000", host)
    assert not ours.allows("http://evil.example:8000", "evil.example:8000")
    assert not ours.allows(None, "evil.example:8000")
    assert not ours.allows(None, "127.0.0.1")
    assert Access(port=80).allows("http://localhost", "localhost")
    public = Access(host="0.0.0.0", token=TOKEN)
    assert public.allows("https://any.example", "any.example")
    assert not public.allows("https://evil.example", "any.example")


def test_an_address_that_others_reach_needs_a_token() -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        Access(host=host)
    for host in ("0.0.0.0", "::", "192.168.1.2", "demo.example.org"):
        with pytest.raises(ConfigError, match=r"--host .*: others can reach .*--token-env"):
            Access(host=host)
    Access(origins=["http://localhost:9000", "https://[::1]"])
    for origin in ("https://demo.example.org", "http://10.0.0.1:8000", "demo.example.org"):
        with pytest.raises(ConfigError, match=rf"--origin {origin}: others can .*--token-env"):
            Access(origins=[origin])
    with pytest.raises(ConfigError, match="token has fewer than 16 characters"):
        Access(token="short")
    for name in ("max_sessions", "max_minutes", "max_frame_kib"):
        with pytest.raises(ConfigError, match=rf"--{name.replace('_', '-')} 0: must be at least"):
            Limits(**{name: 0})


def test_connections_are_bounded_even_without_hello() -> None:
    with serving(limits=Limits(max_sessions=1)) as served:
        idle = [Client(served) for _ in range(9)]
        with pytest.raises(InvalidStatus, match="503"):
            Client(served)
        for client in idle:
            client.close()


def test_the_page_is_all_that_is_served() -> None:
    with serving() as served:
        for path, kind in (("", "html"), ("demo.js", "javascript"), ("dom.js", "javascript")):
            status, body, headers = get(f"{served.url}/{path}")
            assert status == 200
            assert kind in headers["Content-Type"]
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert body
        for path in ("x", "server.py", "../server.py", "%2e%2e/server.py", "docs", "openapi.json"):
            assert get(f"{served.url}/{path}")[0] == 404
