"""A real browser for the report's pages, where there is one; every page opened is watched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from proassist_lit.report.html import write_report
from proassist_lit.report.run_report import RunReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

OpenReport = Callable[..., "Page"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for this folder: while it lives, no other event loop can run in this thread."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def shared_page(browser: Browser) -> Iterator[Page]:
    """One page for all tests but those that need their own clock."""
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture
def open_report(browser: Browser, shared_page: Page, tmp_path: Path) -> Iterator[OpenReport]:
    """Opens a report (or a page as text) and waits until it is drawn.

    At the end, whatever was done with a page: it asked for nothing but itself and its own
    pictures, and its console holds no error.
    """
    opened: list[tuple[Page, dict[str, Callable[[Any], None]], list[str], list[str]]] = []

    def open_(
        report: RunReport | str,
        fragment: str = "",
        *,
        size: tuple[int, int] = (1280, 900),
        scheme: Literal["light", "dark"] = "light",
        clock: bool = False,
        may_fail: bool = False,
    ) -> Page:
        path = tmp_path / "report.html"
        if isinstance(report, str):
            path.write_text(report, encoding="utf-8")
        else:
            write_report(path, report)
        page = browser.new_page() if clock else shared_page
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.goto("about:blank")
        requests: list[str] = []
        errors: list[str] = []
        watch: dict[str, Callable[[Any], None]] = {
            "request": lambda request: requests.append(request.url),
            "pageerror": lambda error: errors.append(str(error)),
            "console": lambda said: errors.append(f"{said.type}: {said.text}"),
        }
        for event, listener in watch.items():
            page.on(event, listener)
        opened.append((page, watch, requests, [] if may_fail else errors))
        if clock:
            page.clock.install(time=datetime(2026, 1, 1, tzinfo=UTC))
        page.goto(path.as_uri() + fragment)
        if not may_fail:
            page.wait_for_selector("html[data-ready]", state="attached")
        if clock:  # until then it went on by itself
            page.clock.pause_at(datetime(2026, 1, 2, tzinfo=UTC))
        return page

    yield open_
    for page, watch, requests, errors in opened:
        for event, listener in watch.items():
            page.remove_listener(event, listener)
        own = page.url.partition("#")[0]
        if page is not shared_page:
            page.close()
        assert own.startswith("file:")
        assert requests
        assert [
            url for url in requests if url.partition("#")[0] != own and url[:5] != "data:"
        ] == []
        assert errors == []
