"""Writes ``docs/results.md`` from the runs of a study: every figure in it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.paper.committed import write_runs
from benchmarks.paper.plan import Plan, Row, Table
from benchmarks.paper.plots import Drawing, draw, drawings, seeds_of, threshold_lines
from benchmarks.paper.results import Study
from benchmarks.paper.run import BASELINES, Run
from benchmarks.paper.verdicts import CHANCE, Verdict, judge
from proassist_lit.atomic import replacing, write_text

NOT_RUN = "not run"
_OLDER = "*Older runs.*"
_SINCE = (
    "Of other data or settings than those of today, or run again since this section was written: "
)
_COMPARE = ". Compare the figures here with each other only."
_MARK = " †"


def write_page(
    plan: Plan, study: Study, out: Path, *, everything: bool = False, only: Sequence[str] = ()
) -> list[Path]:
    """Write the page and its pictures.

    Sections of a page that is there stay as they are where no row has other runs than before.

    Args:
        plan: tables and claims.
        study: the runs.
        out: the page; pictures, and the numbers of every run, go to a folder of its name beside it.
        everything: whether all sections are written anew.
        only: names of the tables whose sections are written anew where rows of others were run
            again, too; those say that they are older. Empty for all.

    Returns:
        What was written.
    """
    numbers = numbers_of(out)
    write_runs(study, numbers)
    written = [out, numbers]
    before = {} if everything else _sections(out)
    verdicts = {
        table.name: [judge(claim, study, plan) for claim in table.claims] for table in plan.tables
    }
    parts = [*_head(plan, study, [v for made in verdicts.values() for v in made])]
    for table in plan.tables:
        again = any(study.is_there(name) for name in table.rows)
        if table.title in before and (not again or (only and table.name not in only)):
            older = [n for n in table.rows if study.is_changed(n) or study.is_older(n)]
            parts += _kept(before[table.title], [plan.rows[name].label for name in older])
            continue
        parts += [f"## {table.title}", "", table.about.strip(), "", *_table(table, plan, study)]
        for drawing in drawings(table, study, plan):
            written.append(numbers.parent / f"{drawing.name}.png")
            parts += _picture(drawing, written[-1])
        parts += _claims(table, study, verdicts[table.name])
    write_text(out, "\n".join([*parts, *_origin(plan, study, numbers)]).rstrip() + "\n")
    return written


def _kept(section: Sequence[str], older: Sequence[str]) -> Iterator[str]:
    """A section as it stands, with a note of the rows that are older than those of today.

    Rows that an earlier note names stay in it: their figures here are those of then.
    """
    told = [line for line in section if line.startswith(_OLDER)]
    listed = [line.partition(_SINCE)[2].removesuffix(_COMPARE) for line in told]
    labels = [label for labels in listed for label in labels.split("; ")]
    note = f"{_OLDER} {_SINCE}{'; '.join(dict.fromkeys([*labels, *older]))}{_COMPARE}"
    for number, line in enumerate(section):
        yield note if older and line.startswith(_OLDER) else line
        if number == 0 and older and not told:
            yield ""
            yield note


def _sections(page: Path) -> Mapping[str, Sequence[str]]:
    """The lines of every section of ``page``, by its title; nothing if there is no page."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines() if page.is_file() else ():
        if line.startswith("## "):
            lines = sections.setdefault(line.removeprefix("## "), [])
        lines.append(line)
    return sections


def _picture(drawing: Drawing, path: Path) -> Iterator[str]:
    """Draw it into ``path``; its lines on the page."""
    with replacing(path) as temporary:
        temporary.write_bytes(draw(drawing))
    seeds = seeds_of(drawing.lines)
    n = " or ".join(map(str, seeds))
    yield f"![{drawing.title}]({path.parent.name}/{path.name})"
    yield ""
    yield "One seed." if seeds == [1] else f"Mean and range over seeds (n = {n})."
    yield ""


def numbers_of(page: Path) -> Path:
    """Where the numbers of every run are kept, beside the page."""
    return page.with_suffix("") / "runs.jsonl"


def _head(plan: Plan, study: Study, verdicts: Sequence[Verdict]) -> Iterator[str]:
    tests = sum(verdict.p is not None for verdict in verdicts)
    yield "# Results"
    yield ""
    yield (
        "Written by `python -m benchmarks.paper report`; no figure here is typed by hand. "
        "Numbers are means over seeds ± standard deviation over seeds; n is the number of seeds. "
        "They are of the test streams where there are any, else of val, on which thresholds are "
        "chosen. Seeds change initial weights and the order of training, not the recordings. "
        "What each metric means: [Metrics](metrics.md)."
    )
    yield ""
    yield (
        "A claim is compared by its direction; a difference counts as seen where a two-sided "
        f"t-test over seeds gives p < {CHANCE:g} (Welch's; paired where both rows stream the same "
        "trained models). Few seeds see large differences only, and none of the "
        f"{tests} tests is corrected for their number. Bounds are those of means; how many seeds "
        "reach them stands beside."
    )
    yield ""
    missing = [row.label for row in plan.rows.values() if not study.runs[row.name]]
    if missing:
        yield f"Not yet run: {len(missing)} of {len(plan.rows)} rows ({'; '.join(missing)})."
        yield ""


def _table(table: Table, plan: Plan, study: Study) -> Iterator[str]:
    rows = [plan.rows[name] for name in table.rows]
    if table.thresholds:
        yield from _threshold_table(table, plan, study)
    else:
        columns = [*(plan.metrics[m] for m in table.metrics), *(f"*{c}*" for c in table.published)]
        header = ["run", "n", *columns]
        body = [_row(row, table, study) for row in rows]
        yield from _markdown(
            header, [*body, *(_baselines(rows, table, study) if table.baselines else ())]
        )
    lacking = [
        f"{row.label} has no {', '.join(names)}"
        for row in rows
        if study.runs[row.name] and (names := _lacking(row, table, plan, study))
    ]
    if lacking and not table.thresholds:
        yield f"Missing: {'; '.join(lacking)}."
        yield ""
    if not table.thresholds and any(study.is_older(row.name) for row in rows):
        yield (
            f"{_MARK.strip()} Older, of other data or settings than those of today: not to be "
            "compared with the other rows."
        )
        yield ""
    splits = sorted({run.split for row in rows for run in study.runs[row.name]})
    if splits and not table.thresholds:
        sizes = _each(_size(run) for row in rows for run in study.runs[row.name])
        yield f"Split: {', '.join(splits)}{sizes and f' ({sizes})'}."
        yield ""


def _size(run: Run) -> str:
    """What was streamed, in words; empty if that is not known."""
    if not run.size:
        return ""
    corrections = f", {run.size['corrections']} of them corrections" * ("corrections" in run.size)
    return f"{run.size['streams']} streams, {run.size['utterances']} utterances{corrections}"


def _row(row: Row, table: Table, study: Study) -> list[str]:
    runs = study.runs[row.name]
    published = [
        f"*{figures[row.name]:g}*" if row.name in figures else ""
        for figures in table.published.values()
    ]
    if not runs:
        return [row.label, "0", *(NOT_RUN for _ in table.metrics), *published]
    spreads = [study.spread(row.name, metric) for metric in table.metrics]
    ours = ["–" if s is None else str(s) for s in spreads]
    label = row.label + (_MARK if study.is_older(row.name) else "")
    return [label, str(len(runs)), *ours, *published]


def _baselines(rows: Sequence[Row], table: Table, study: Study) -> Iterator[list[str]]:
    """Those who do not look; blind is each model that was trained, the others are no model's."""
    trained = [row for row in rows if study.runs[row.name] and not row.of]
    for name in BASELINES:
        is_blind = name.startswith("blind")
        for row in trained if is_blind else trained[:1]:
            cells = [
                None if "/" in metric else study.spread(row.name, f"baseline/{name}/{metric}")
                for metric in table.metrics
            ]
            if any(cells):
                label = f"*{name.replace('_', ' ')}*" + (f" ({row.label})" if is_blind else "")
                published = ["" for _ in table.published]
                yield [label, "", *("–" if s is None else str(s) for s in cells), *published]


def _lacking(row: Row, table: Table, plan: Plan, study: Study) -> list[str]:
    """Metrics that some run of ``row`` does not have."""
    runs = study.runs[row.name]
    return [plan.metrics[m] for m in table.metrics if any(m not in run.metrics for run in runs)]


def _threshold_table(table: Table, plan: Plan, study: Study) -> Iterator[str]:
    lines = threshold_lines(table, study, plan)
    thetas = sorted({theta for points in lines.values() for theta in points})
    numbers = {
        theta: [str(p[theta]) if theta in p else "–" for p in lines.values()] for theta in thetas
    }
    if not thetas:
        yield f"{NOT_RUN.capitalize()}."
        yield ""
        return
    body = []
    for cells, same in groupby(thetas, key=numbers.__getitem__):  # one line where nothing changes
        first, *others = same
        body.append([f"{first:g}" + (f" to {others[-1]:g}" if others else ""), *cells])
    yield from _markdown(["threshold of P(speak), on val", *lines], body)


def _claims(table: Table, study: Study, verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield f"*The paper.* {table.paper.strip()}"
    yield ""
    if verdicts:
        whose = {"paper": "the paper's direction", "ours": "ours"}
        body = [[whose[v.claim.whose], v.claim.says, v.verdict, v.numbers] for v in verdicts]
        yield from _markdown(["whose claim", "claim", "here", "numbers"], body)
    if table.found and any(study.runs[name] for name in table.rows):
        yield f"*Looked into.* {table.found.strip()}"
        yield ""


def _origin(plan: Plan, study: Study, numbers: Path) -> Iterator[str]:
    """Command, commit, date, hardware and time, as the runs recorded them."""
    runs = study.all_runs
    extra = sorted({text for run in runs for text in run.extra(plan.rows[run.row])})
    yield "## Where the numbers come from"
    yield ""
    yield (
        "A row is run with the command below and its name of the table (`main/per_token`), those "
        "of CaptainCook4D with `--cook DIR`, too. What a row evaluates again is run first. "
        "Without `--set`, runs go to W&B and to a GPU where there is one."
    )
    yield ""
    yield "```bash"
    yield (
        "python -m benchmarks.paper run DIR --only TABLE/ROW --seeds 1,2,3 --jobs 1"
        + (f" --set {' '.join(extra)}" if extra else "")
    )
    yield "```"
    yield ""
    hours = sum(run.seconds or 0.0 for run in runs) / 3600
    facts = {
        "dates": _range([(run.started or "")[:10] for run in runs]),
        "processor": _each(
            f"{run.cpu}, {run.cores} cores, {run.threads} threads a run"
            for run in runs if run.cores
        ),
        "machine": _each(run.machine for run in runs),
        "versions": _each(run.versions for run in runs),
        "similarity of words": _each(run.similarity for run in runs),
        "runs": f"{len(runs)}, {hours:.1f} hours of runs in all",
    }  # fmt: skip
    yield from (f"- {name}: {text}" for name, text in facts.items() if text)
    yield (
        f"- numbers of every run: [runs.jsonl]({numbers.parent.name}/{numbers.name}); "
        "`python -m benchmarks.paper compare DIR` tells whether runs of yours reach them"
    )
    yield ""
    body = []
    for row in plan.rows.values():
        found = study.runs[row.name]
        seconds = [run.seconds for run in found if run.seconds is not None]
        unknown = "not noted" if found else NOT_RUN
        time = f"{sum(seconds) / len(seconds):.0f} s" if seconds else unknown
        start = f"(evaluates {row.of} again)" if row.of else f"+experiment={row.experiment}"
        where = _each(run.commit for run in found), _each((run.started or "")[:10] for run in found)
        table = next((table.name for table in plan.tables if row.name in table.rows), "")
        name = f"{table}/{row.name}" if table else row.name
        seeds = ",".join(str(run.seed) for run in found)
        body.append([f"`{name}`", f"`{' '.join([start, *row.set])}`", seeds, *where, time])
    header = ["row", "settings", "seeds", "commit", "date", "mean time of a run"]
    yield from _markdown(header, body)


def _each(values: Iterable[object]) -> str:
    return "; ".join(sorted({str(value) for value in values if value}))


def _range(values: Sequence[str]) -> str:
    found = sorted(filter(None, values))
    return " to ".join(dict.fromkeys((found[0], found[-1]))) if found else ""


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join(' --- ' for _ in header)}|"
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in body)
    yield ""
