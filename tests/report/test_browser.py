"""The page in a real browser, where there is one: the script draws everything, without error."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proassist_lit.report.html import render_report, write_report

from .fakes import fake_report
from .test_html import HOSTILE, hostile_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")


def dump_dom(page: Path, profile: Path, fragment: str = "") -> str:
    """The document after the page's script has run."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--window-size=1280,1600", "--dump-dom",
        page.as_uri() + fragment,
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return result.stdout


def test_script_draws_the_page(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", fake_report())
    dom = dump_dom(tmp_path / "report.html", tmp_path / "profile", "#stream=0&frame=93")
    assert 'data-ready="1"' in dom
    assert "data-fault" not in dom

    pills = re.findall(r'<button type="button" class="pill m-(\w+)', dom)
    # 2 of the user; 8 reference and 8 generated utterances, of which 6 pairs match and 1 does not.
    assert sorted(pills) == sorted(
        ["user"] * 2 + ["matched"] * 12 + ["mismatched"] * 2 + ["missed", "redundant"]
    )
    assert dom.count('class="fired"') == 8 + 9  # spoken, and updates that were made
    assert len(re.findall(r'<path class="prob" d="M[\d.]+ [\d.]+L', dom)) == 2
    assert len(re.findall(r'<div class="lane[^"]*"', dom)) == 8 + 5  # axis to links, one a step
    assert len(re.findall(r'class="gen-2"', dom)) == 4 + 1  # S4 is never completed; the legend
    assert len(re.findall(r'<figure class="panel"', dom)) == 5
    assert "0:46.5</b>" in dom  # the cursor stands where the link asked
    assert "mismatched 0.31, 1.0 s late" in dom
    assert re.search(r'<td class="test best">0\.\d{3}</td>', dom)
    assert "<dt>train/loss</dt><dd>0.213</dd>" in dom  # of no column, so not in the table
    assert len(re.findall(r"<li ", dom)) == 18 + 10 + 9 + 1  # words, updates, context event


def test_hostile_text_does_not_run(tmp_path: Path) -> None:
    # An alert would end in an img element; a script of the text would change the title.
    # Chromium's own printing of the document, not the page, dies of a lone surrogate.
    text = HOSTILE.replace("\ud800", "").replace("alert(1)", "document.title='owned'")
    write_report(tmp_path / "report.html", hostile_report(text))
    dom = dump_dom(tmp_path / "report.html", tmp_path / "profile")
    assert 'data-ready="1"' in dom
    assert "data-fault" not in dom
    assert "<title>owned" not in dom
    assert '<img src="x"' not in dom
    assert "&lt;/script&gt;&lt;script&gt;document.title='owned'" in dom


def test_a_fault_of_the_script_is_said(tmp_path: Path) -> None:
    page = render_report(fake_report(1)).replace("\nstart();\n", "\nstart();\nnonsense();\n")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    dom = dump_dom(tmp_path / "report.html", tmp_path / "profile")
    assert re.search(r'<p id="fault" role="alert">This report could not.*nonsense', dom)
