"""The progress line of judging, where a person watches."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from proassist_lit.judge.asking import Tally
from proassist_lit.judge.usage import Prices


class JudgeProgress:
    """Answers so far, what they took, and the time left; on stderr, gone at the end.

    Args:
        prices: to show the cost; None shows tokens alone.
        console: where to; None is stderr.
    """

    def __init__(self, prices: Prices | None, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._prices = prices
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("Judging", total=None, note="")

    def __enter__(self) -> JudgeProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, tally: Tally) -> None:
        """Show how far the asking is."""
        note = tally.asked.describe(self._prices)
        if failed := tally.failures.total():
            note += f", {failed} failed"
        if tally.stopped:
            note += f"; {tally.stopped}: waiting for answers under way"
        self._bar.update(
            self._task,
            total=tally.num_requests,
            completed=tally.num_requests - tally.num_missing,
            note=note,
        )
