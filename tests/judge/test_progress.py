from __future__ import annotations

import io

from rich.console import Console

from proassist_lit.judge.answer import Answer
from proassist_lit.judge.asking import Tally
from proassist_lit.judge.progress import JudgeProgress
from proassist_lit.judge.usage import Prices, Usage


def shown(tally: Tally, *, is_terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=200)
    with JudgeProgress(Prices(prompt=1.0, completion=10.0), console) as progress:
        progress.show(tally)
        progress._bar.refresh()
    return out.getvalue()


def test_progress_shows_answers_cost_and_failures() -> None:
    tally = Tally(num_requests=42, num_kept=10)
    tally.asked = Usage().plus(Answer(text="", prompt_tokens=1_000_000, completion_tokens=100_000))
    tally.failures["HTTP 500"] = 3
    text = shown(tally, is_terminal=True)
    assert "11/42" in text
    assert "1,000,000 tokens in, 100,000 out, cost 2.0000, 3 failed" in text
    assert "waiting" not in text
    tally.stopped = "interrupted"
    assert "interrupted: waiting for answers under way" in shown(tally, is_terminal=True)


def test_progress_is_silent_where_nobody_watches() -> None:
    assert shown(Tally(num_requests=42, num_kept=10), is_terminal=False) == ""
