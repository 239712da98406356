"""What a judge found, as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from proassist_lit.judge.pairs import RunComparison
from proassist_lit.judge.prompt import ASPECTS
from proassist_lit.judge.scores import SplitScores


def score_table(split: str, scores: SplitScores) -> Group:
    """Mean scores, and the stream that did worst in each aspect."""
    title = f"{split}, judged by {scores.settings.model}: {_streams(scores)}, scores 1 to 5"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("aspect")
    table.add_column("mean", justify="right")
    table.add_column("lowest", justify="right")
    table.add_column("of stream", overflow="fold")
    for aspect in ASPECTS:
        mean = scores.mean(aspect)
        means = [(stream.mean(aspect), stream.stream_id) for stream in scores.streams]
        lowest = min(((score, name) for score, name in means if score is not None), default=None)
        table.add_row(
            aspect,
            "-" if mean is None else f"{mean:.2f}",
            "-" if lowest is None else f"{lowest[0]:.2f}",
            Text("" if lowest is None else lowest[1]),
        )
    return Group(Text(title), table)  # a table's own title would wrap at its width


def comparison_table(split: str, here: str, there: str, comparison: RunComparison) -> Group:
    """Wins and losses of ``here`` against ``there``, and how far the position mattered."""
    title = (
        f"{split}, judged by {comparison.settings.model}: {here} against {there}, "
        f"{_streams(comparison)}"
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("aspect")
    for name in ("wins", "ties", "losses", "p (sign test)", "first preferred", "ways agree"):
        table.add_column(name, justify="right")
    for aspect in ASPECTS:
        found = comparison.aspect(aspect)
        table.add_row(
            aspect,
            str(found.wins),
            str(found.ties),
            str(found.losses),
            f"{found.p_value:.3g}",
            f"{found.num_first} of {found.num_decided}",
            f"{found.num_agreeing} of {comparison.num_judged}",
        )
    return Group(Text(title), table)


def _streams(result: SplitScores | RunComparison) -> str:
    return f"{result.num_judged} stream{'' if result.num_judged == 1 else 's'}"
