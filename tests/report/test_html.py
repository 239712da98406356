from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from proassist_lit.report import html
from proassist_lit.report.html import render_report, write_report
from proassist_lit.report.run_report import RunReport

from .fakes import cooking_stream, fake_report

HOSTILE = (
    "<img src=x onerror=alert(2)></script><script>alert(1)</script ><!-- & \" ' {{css}} {{data}}"
    " \u2028 \ud800 é"
)


class Page(HTMLParser):
    """Tags with their attributes, and the text inside scripts, as a browser would cut them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self._open, []).append(data)

    def data(self) -> dict:
        return json.loads(next(t for t in self.text["script"] if t.startswith("{")))


def hostile_report(text: str = HOSTILE) -> RunReport:
    stream = cooking_stream()
    frames = list(stream.transcript.frames)
    frames[3] = replace(frames[3], text=text, user_text=text, event=text)
    transcript = replace(
        stream.transcript,
        stream_id=text,
        dataset=text,
        steps=(("S1", text),),
        frames=tuple(frames),
    )
    return RunReport(
        title=text,
        config_yaml=text,
        metrics={f"test/{text}": 1.0, "test/similarity_model": text, text: text},
        curves={f"train/{text}": [(0, 1.0)]},
        streams=[replace(stream, split=text, transcript=transcript)],
        notes={text: text},
    )


def test_page_holds_the_data_it_was_given() -> None:
    data = Page(render_report(fake_report())).data()
    assert data["title"] == "per_turn, toy data, seed 0"
    assert [stream["id"] for stream in data["streams"]] == [
        "toy_000_talk_some",
        "toy_001_talk_some",
        "toy_002_talk_some",
    ]
    assert data["streams"][0]["n"] == 150


def test_hostile_text_stays_data() -> None:
    plain, hostile = Page(render_report(fake_report())), Page(render_report(hostile_report()))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert hostile.data()["title"] == HOSTILE
    assert hostile.data()["streams"][0]["user"][1] == [3, HOSTILE]


def test_script_json_holds_no_sign_that_markup_begins_with() -> None:
    text = html.script_json({HOSTILE: [HOSTILE]})
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == {HOSTILE: [HOSTILE]}


def test_places_in_the_text_are_not_filled_in() -> None:
    page = render_report(replace(fake_report(), title="{{data}}"))
    assert "<title>{{data}}</title>" in page


def test_page_asks_the_network_for_nothing() -> None:
    page = render_report(fake_report())
    # W3's name of SVG is not an address that is fetched.
    code = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|@import|url\((?!#)|fetch\(|XMLHttp|WebSocket|import\(", code)
    for tag, attrs in Page(page).tags:
        for name in ("src", "href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), (tag, attrs)
    assert "default-src 'none'" in page


def test_write_report_replaces_the_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(path, fake_report(1))
    write_report(path, replace(fake_report(1), title="second"))
    assert "<title>second</title>" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_write_report_keeps_the_old_page_if_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")

    def full(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, fake_report(1))
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_fifty_long_streams_stay_light() -> None:
    streams = [cooking_stream(seed % 3, num_frames=1000) for seed in range(3)]
    streams = [replace(stream, filmstrip=()) for stream in streams]
    report = replace(fake_report(0), streams=[streams[k % 3] for k in range(50)])
    begin = time.perf_counter()
    page = render_report(report)
    assert len(page) < 2_000_000  # 20 bytes per frame for each probability, state and token count
    assert time.perf_counter() - begin < 10
