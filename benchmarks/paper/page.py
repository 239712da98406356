"""Writes ``docs/results.md`` from the runs of a study: every figure in it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.paper.committed import write_runs
from benchmarks.paper.plan import Plan, Row, Table
from benchmarks.paper.plots import draw, drawings, seeds_of, threshold_lines
from benchmarks.paper.results import CHANCE, Study
from proassist_lit.atomic import replacing, write_text

BASELINES = ("blind", "blind_zeros", "clock", "always_speak", "always_silent")
"""Those who do not look, in the order of the page."""

NOT_RUN = "not run"


def write_page(plan: Plan, study: Study, out: Path) -> list[Path]:
    """Write the page and its pictures.

    Args:
        plan: tables and claims.
        study: the runs.
        out: the page; pictures, and the numbers of every run, go to a folder of its name beside it.

    Returns:
        What was written.
    """
    pictures = out.with_suffix("")
    numbers = pictures / "runs.jsonl"
    write_runs(plan, study, numbers)
    written = [out, numbers]
    parts = [*_head(plan, study)]
    for table in plan.tables:
        parts += [f"## {table.title}", "", table.about.strip(), "", *_table(table, plan, study)]
        for drawing in drawings(table, study, plan):
            picture = pictures / f"{drawing.name}.png"
            with replacing(picture) as temporary:
                temporary.write_bytes(draw(drawing))
            written.append(picture)
            seeds = " or ".join(map(str, seeds_of(drawing.lines)))
            parts += [
                f"![{drawing.title}]({pictures.name}/{picture.name})", "",
                f"Mean and range over seeds (n = {seeds}).", "",
            ]  # fmt: skip
        parts += _claims(table, study)
    write_text(out, "\n".join([*parts, *_origin(plan, study, numbers)]).rstrip() + "\n")
    return written


def _head(plan: Plan, study: Study) -> Iterator[str]:
    yield "# Results"
    yield ""
    yield (
        "Written by `python -m benchmarks.paper report`; no figure here is typed by hand. "
        "Numbers are means over seeds ± standard deviation of a seed; n is the number of seeds. "
        "They are of the test streams where there are any, else of val, on which thresholds are "
        "chosen. A difference counts as seen where Welch's t-test over seeds gives "
        f"p < {CHANCE:g}; few seeds see large ones only."
    )
    yield ""
    missing = [row.label for row in plan.rows.values() if not study.runs[row.name]]
    if missing:
        yield f"Of {len(plan.rows)} rows {len(missing)} are {NOT_RUN}."
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
    splits = sorted({run.split for row in rows for run in study.runs[row.name]})
    if splits and not table.thresholds:
        yield f"Split: {', '.join(splits)}."
        yield ""


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
    return [row.label, str(len(runs)), *ours, *published]


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
    return [plan.metrics[m] for m in table.metrics if any(run.value(m) is None for run in runs)]


def _threshold_table(table: Table, plan: Plan, study: Study) -> Iterator[str]:
    lines = threshold_lines(table, study, plan)
    thetas = sorted({theta for points in lines.values() for theta in points})
    if not thetas:
        yield f"{NOT_RUN.capitalize()}."
        yield ""
        return
    body = [
        [f"{theta:g}", *(str(p[theta]) if theta in p else "–" for p in lines.values())]
        for theta in thetas
    ]
    yield from _markdown(["threshold of P(speak), on val", *lines], body)


def _claims(table: Table, study: Study) -> Iterator[str]:
    yield f"*The paper.* {table.paper.strip()}"
    yield ""
    verdicts = [study.judge(claim) for claim in table.claims]
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
    yield "## Where the numbers come from"
    yield ""
    if study.commands:
        yield "```bash"
        yield from study.commands
        yield "```"
        yield ""
    notes = [run.read("notes.json") or {} for run in runs]
    machines = [run.machine for run in runs]
    hours = sum(float(m.get("seconds", 0.0)) for m in machines) / 3600
    facts = {
        "commit": _each(run.commit for run in runs),
        "dates": _range([str(m.get("started", ""))[:10] for m in machines]),
        "processor": _each(
            f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads a run, {m['at_once']} runs at "
            "once" for m in machines if "cpu" in m
        ),
        "machine": _each(n.get("machine") for n in notes),
        "versions": _each(
            ", ".join(f"{name} {n[name]}" for name in ("torch", "lightning", "transformers"))
            for n in notes if "torch" in n
        ),
        "similarity of words": _each(run.metrics.get("similarity") for run in runs),
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
        seconds = [float(run.machine["seconds"]) for run in found if "seconds" in run.machine]
        time = f"{sum(seconds) / len(seconds):.0f} s" if seconds else NOT_RUN
        start = f"of {row.of}" if row.of else f"+experiment={row.experiment}"
        body.append([f"`{row.name}`", f"`{' '.join([start, *row.set])}`", time])
    yield from _markdown(["row", "settings", "mean time of a run"], body)


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
