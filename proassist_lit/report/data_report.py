"""Statistics and faults of a data set for a person to read: in the terminal, or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from proassist_lit.report.data_features import CheckedFeatures
from proassist_lit.report.data_files import DataFile
from proassist_lit.report.data_statistics import ClassBalance, DataStatistics, Distribution
from proassist_lit.report.page import bin_label, clean, html_table, number, render_page
from proassist_lit.report.page import svg_histogram as svg

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_CELLS = 24


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found in a data set.

    Attributes:
        files: the files that were read.
        statistics: numbers of the sound records; None if there are none.
        tokens: how tokens were counted, in words: tokenizer and chat format.
        features: what was found in their features.
    """

    files: tuple[DataFile, ...]
    statistics: DataStatistics | None
    tokens: str
    features: CheckedFeatures

    @property
    def num_faults(self) -> int:
        """Faults of all files, and of their features."""
        return sum(len(file.faults) for file in self.files) + len(self.features.faults)

    def fault_lines(self) -> list[str]:
        """One line a file with what it holds, then its faults and warning; last the features."""
        lines = []
        for file in self.files:
            if file.is_readable:
                faults = _plural(len(file.faults), "fault") if file.faults else "no faults"
                held = "sound record" if file.faults else "record"
                lines.append(f"{file.path}: {_plural(len(file.conversations), held)}, {faults}")
            lines += [str(fault) for fault in file.faults]
            lines += [file.warning] if file.warning else []
        if self.features.encoders or self.features.faults:
            faults = _plural(len(self.features.faults), "fault") if self.features.faults else ""
            names = ", ".join(self.features.encoders)
            lines.append(f"features{names and ' of '}{names}: {faults or 'no faults'}")
            lines += [str(fault) for fault in self.features.faults]
        lines += [f"features not checked: {reason}" for reason in self.features.left_out]
        return lines

    def __rich__(self) -> RenderableType:
        """The statistics; empty without any."""
        if self.statistics is None:
            return Text("no sound record: nothing to count", style="dim")
        numbers = _table(["", *_OVERVIEW_HEAD], overview(self.statistics))
        balance = _table(["decision", *_BALANCE_HEAD], class_balance(self.statistics))
        spread = _table(["", *_SPREAD_HEAD], spreads(self.statistics))
        histograms = [
            Padding(_histogram(name, values), (0, 4, 1, 0))
            for name, values in distributions(self.statistics)
        ]
        return Group(numbers, balance, spread, Text(self.tokens, style="dim"), Text(),
                     Columns(histograms))  # fmt: skip

    def to_html(self) -> str:
        """One self-contained page: faults, numbers, histograms."""
        kind = "fault" if self.num_faults else "soft"
        faults = f"<ul class={kind}>" + "".join(
            f"<li>{clean(line)}</li>" for line in self.fault_lines()
        )
        parts = [f"<h2>Files: {_plural(self.num_faults, 'fault')}</h2>\n{faults}</ul>"]
        if self.statistics is None:
            parts.append("<p>No sound record: nothing to count.</p>")
        else:
            figures = "\n".join(
                f"<figure><figcaption>{clean(name)}</figcaption>"
                f"{svg(values.histogram(), unit=_unit(name), whole=values.is_whole)}</figure>"
                for name, values in distributions(self.statistics)
            )
            parts += [
                "<h2>Numbers</h2>" + html_table(["", *_OVERVIEW_HEAD], overview(self.statistics)),
                "<h2>Frames of each kind</h2>"
                + html_table(["decision", *_BALANCE_HEAD], class_balance(self.statistics)),
                "<h2>Spread</h2>" + html_table(["", *_SPREAD_HEAD], spreads(self.statistics)),
                f"<p class=soft>{clean(self.tokens)}</p>",
                f"<h2>Histograms</h2>\n<div class=charts>{figures}</div>",
            ]
        return render_page("Data set", "\n".join(parts))


_OVERVIEW_HEAD = ("total", "")
_BALANCE_HEAD = ("pos", "neg", "neither", "pos : neg : neither", "rate")
_SPREAD_HEAD = ("min", "median", "p95", "max")


def overview(statistics: DataStatistics) -> list[list[str]]:
    """Rows of name, total, and what the total means."""
    per_hour = statistics.num_utterances / statistics.hours if statistics.hours else 0.0
    images = ", ".join(map(str, statistics.tokens_per_image))
    return [
        ["records", number(statistics.num_records), ""],
        ["videos", number(statistics.num_videos), ""],
        ["frames", number(statistics.num_frames), f"K = {images} tokens each"],
        ["hours", f"{statistics.hours:.2f}", "as often as they are watched"],
        ["utterances", number(statistics.num_utterances), f"{per_hour:.0f} an hour"],
        ["user turns", number(statistics.num_user_turns), ""],
        ["state updates", number(statistics.num_updates), ""],
    ]


def class_balance(statistics: DataStatistics) -> list[list[str]]:
    """Rows of decision, frames of each kind, their ratio, and the share of pos."""
    return [
        [name, number(b.pos), number(b.neg), number(b.neither), _ratio(b), _rate(b)]
        for name, b in (("speak", statistics.speak), ("update", statistics.dst))
    ]


def spreads(statistics: DataStatistics) -> list[list[str]]:
    """Rows of quantity, minimum, median, 95th percentile and maximum."""
    return [
        [name, *(number(x) for x in (values.minimum, values.median, values.p95, values.maximum))]
        for name, values in distributions(statistics)
    ]


def distributions(statistics: DataStatistics) -> list[tuple[str, Distribution]]:
    """Every quantity whose histogram is drawn, by name."""
    return [
        ("sequence length (tokens)", statistics.sequence_tokens),
        ("gap between utterances (s)", statistics.gap_s),
        ("utterance length (words)", statistics.utterance_words),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(head):
        table.add_column(Text(column), justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _histogram(name: str, values: Distribution) -> RenderableType:
    bins = values.histogram()
    top = max((bin_.count for bin_ in bins), default=0)
    table = Table(box=None, title=Text(name, style="bold"), title_justify="left", show_header=False)
    table.add_column(justify="right")
    table.add_column(width=_BAR_CELLS, style="cyan")
    table.add_column(justify="right")
    for bin_ in bins:
        table.add_row(
            Text(bin_label(bin_, whole=values.is_whole)),
            Text(_bar(bin_.count / top)),
            Text(number(bin_.count), style="dim"),
        )
    return table if bins else Text(f"{name}: no values", style="dim")


def _bar(share: float) -> str:
    """A bar of unicode eighths; what is not nothing is seen."""
    eighths = max(round(share * _BAR_CELLS * 8), 1 if share else 0)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _ratio(balance: ClassBalance) -> str:
    """The three counts, relative to pos."""
    if not balance.pos:
        return "–"
    neg, neither = (number(x / balance.pos) for x in (balance.neg, balance.neither))
    return f"1 : {neg} : {neither}"


def _rate(balance: ClassBalance) -> str:
    """Share of all frames; a dash where no frame has a decision."""
    return f"{balance.rate:.2%}" if balance.pos + balance.neg else "–"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _unit(name: str) -> str:
    return name.rpartition("(")[2].rstrip(")")
