"""The demo's page in a real browser, with a file and with a camera."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from proassist_lit.demo.limits import Limits
from tests.vision.clips import make_clip

from .servers import Served, serving, tiny_assistant

pytestmark = pytest.mark.road

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SHOTS = os.environ.get("PROASSIST_SHOTS")
"""Folder for pictures of the page, to look at."""

OUTSIDE = """
() => [...document.querySelectorAll("body *")]
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
    .filter((node) => !node.closest("ol, [hidden]")).map((node) => node.outerHTML.slice(0, 90))
"""


class Opened:
    """A page of the demo, watched for errors."""

    def __init__(self, browser: Browser, served: Served, **options: object) -> None:
        self.context = browser.new_context(reduced_motion="reduce", **options)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.set_default_timeout(8000)
        self.page.goto(served.url)
        self.page.wait_for_selector("#status:not(:text('Connecting'))")

    def said(self, who: str) -> list[str]:
        return self.page.locator(f'#dialogue li[data-who="{who}"] > span').all_text_contents()

    def shoot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)

    def close(self) -> None:
        self.context.close()
        assert self.errors == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds that browsers can play, a new picture every quarter."""
    rng = np.random.default_rng(4)
    halves = rng.integers(0, 256, (40, 2, 1, 3), dtype=np.uint8)
    pictures = [half.repeat(60, axis=0).repeat(160, axis=1) for half in halves]
    path = tmp_path_factory.mktemp("page") / "clip.webm"
    return make_clip(
        path, range(0, 250 * len(pictures), 250), pictures=pictures, size=(160, 120),
        codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(tiny_assistant(0.5, 0.3), limits=Limits(max_sessions=9)) as served:
        yield served


def test_a_file_is_watched_to_utterances_and_ticked_steps(
    camera_browser: Browser, served: Served, clip: Path
) -> None:
    opened = Opened(camera_browser, served, viewport={"width": 1280, "height": 900})
    page = opened.page
    assert page.locator("#task option").all_inner_texts() == ["soup (2 steps)", "none (0 steps)"]
    page.set_input_files("#file", clip)
    page.wait_for_selector('#dialogue li[data-who="assistant"]')
    page.fill("#words", "how many")
    page.click("#send")
    page.wait_for_selector('#dialogue li[data-who="user"]')
    assert opened.said("user") == ["You: how many"]
    page.wait_for_selector("#steps li.in_progress, #steps li.completed")
    assert re.match(r"[◐●] S[12] (wash|peel): (in progress|completed)$", opened.said("state")[0])
    assert page.locator("#meter-speak .number").inner_text() != "–"
    assert re.fullmatch(r"\d+ ms", page.locator("#fact-p95").inner_text())
    opened.shoot("file")

    page.evaluate("Object.assign(byId('meter-speak').querySelector('input'), {value: 1})")
    page.dispatch_event("#meter-speak input", "input")
    assert page.locator("#meter-speak .threshold").inner_text() == "1.00"
    watched = int(page.locator("#fact-watched").inner_text())
    page.wait_for_function(f"() => Number(byId('fact-watched').textContent) > {watched + 1}")
    silent = len(opened.said("assistant"))
    page.wait_for_function(f"() => Number(byId('fact-watched').textContent) > {watched + 4}")
    assert len(opened.said("assistant")) == silent
    page.click("#stop")
    assert page.locator("#status").inner_text() == "Stopped."
    assert page.evaluate("document.querySelector('video').src") == ""
    opened.close()


def test_a_camera_is_watched_and_the_session_outlives_a_drop(
    camera_browser: Browser, served: Served
) -> None:
    opened = Opened(camera_browser, served, permissions=["camera"])
    page = opened.page
    page.evaluate(
        "Object.assign(window, {spoken: []}); speechSynthesis.speak = (u) => spoken.push(u.text); 0"
    )
    page.check("#aloud")
    page.click("#camera")
    page.wait_for_function("() => Number(byId('fact-watched').textContent) > 1")
    page.evaluate("Object.assign(byId('meter-speak').querySelector('input'), {value: 0})")
    page.dispatch_event("#meter-speak input", "input")  # from now on at every frame
    page.wait_for_selector('#dialogue li[data-who="assistant"]')
    assert page.evaluate("spoken.length") > 0
    session, before = page.evaluate("link.session"), opened.said("assistant")
    served.drop_connections()
    page.wait_for_selector('#dialogue li:has-text("The connection is back.")')
    assert page.evaluate("link.session") == session
    count = len(opened.said("assistant"))
    spoken = 'document.querySelectorAll("#dialogue [data-who=assistant]").length'
    page.wait_for_function(f"() => {spoken} > {count}")
    after = opened.said("assistant")
    assert after[: len(before)] == before  # what was said before is told again
    assert page.locator("#meter-speak .threshold").inner_text() == "0.00"
    page.click("#stop")
    page.wait_for_function("() => link.socket.readyState === WebSocket.CLOSED")
    opened.close()
    assert session not in served.sessions._entries


def test_a_browser_that_gives_no_camera_is_told_why(
    camera_browser: Browser, served: Served
) -> None:
    opened = Opened(camera_browser, served)
    page = opened.page
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.reload()  # as over http:// from another machine
    page.wait_for_selector("#status:text('Browsers give cameras to pages of https://')")
    assert page.locator("#camera").is_disabled()
    opened.close()


def test_a_full_server_and_a_missing_token_are_told(camera_browser: Browser, clip: Path) -> None:
    token = "a token of twenty-four c"
    with serving(token=token, limits=Limits(max_sessions=1)) as guarded:
        opened = Opened(camera_browser, guarded)
        page = opened.page
        assert page.locator("#main").is_hidden()
        page.fill("#token", "wrong")
        page.click("#enter")
        page.wait_for_selector("#status:text('This is not the token.')")
        page.fill("#token", token)
        page.click("#enter")
        page.wait_for_selector("#main")
        with guarded.client(token=token):
            page.set_input_files("#file", clip)
            page.wait_for_selector("#fault:text('all 1 places are taken')")
        opened.errors[:] = [error for error in opened.errors if "401" not in error]
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 860), (390, 844)])
def test_the_page_fits_laptop_and_phone(
    camera_browser: Browser, served: Served, clip: Path, scheme: Literal["light", "dark"],
    size: tuple[int, int],
) -> None:  # fmt: skip
    opened = Opened(
        camera_browser, served, viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    page = opened.page
    if SHOTS:
        page.set_input_files("#file", clip)
        page.wait_for_selector("#steps li.in_progress, #steps li.completed")
        page.wait_for_timeout(1500)
        opened.shoot(f"{scheme}-{size[0]}")
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.evaluate(OUTSIDE) == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert all((int(part) > 128) == (scheme == "light") for part in re.findall(r"\d+", colour))
    opened.close()
