"""A real browser with a camera that is none, where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.report.conftest import CHROMIUM, OPTIONS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="package")
def camera_browser() -> Iterator[Browser]:
    """One browser for this folder: while it lives, no other event loop can run in this thread."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*OPTIONS, *CAMERA, "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()
