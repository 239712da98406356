"""The plan of the study, read from ``benchmarks/paper.yaml``: its rows, tables and claims."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from proassist_lit.errors import ConfigError

_DATA = ("toy", "captaincook4d")

PLAN = Path(__file__).parents[1] / "paper.yaml"

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is trained and evaluated, or only evaluated: a line of a table.

    Attributes:
        name: of its directory.
        label: what the tables call it.
        experiment: ``+experiment=`` of a row that trains.
        of: row whose run this one evaluates again, with other settings; then there is no training.
        set: ``key=value`` overrides.
        seeds: its own, instead of those that are asked for; empty for none of its own.
        cook: whether it needs the annotation files of CaptainCook4D.
        cost: how long it takes, as a multiple of the row ``per_token``.
    """

    name: str
    label: str
    experiment: str = ""
    of: str = ""
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    cook: bool = False
    cost: float = 1.0

    @property
    def settings(self) -> list[str]:
        """What decides its result, but for those of all rows."""
        return [f"of={self.of}" if self.of else f"+experiment={self.experiment}", *self.set]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that the tables bear out, or do not.

    Attributes:
        says: the claim in words.
        whose: ``paper`` (a direction that it published) or ``ours``.
        metric: key of ``metrics.json`` without its split.
        row: the row it is about.
        better: name of a row that ``row`` is better than.
        same: name of a row that ``row`` does not differ from.
        no_better: name of a row that ``row`` is not better than.
        rises: the metric on val is higher at the highest threshold of P(speak) than at the lowest.
        falls: it is lower there.
        at_least: least value of the mean.
        at_most: largest value of the mean.
        share_of_own: another metric of ``row``; the mean is at most ``at_most`` times it.
    """

    says: str
    metric: str
    row: str
    whose: str = "paper"
    better: str = ""
    same: str = ""
    no_better: str = ""
    rises: bool = False
    falls: bool = False
    at_least: float | None = None
    at_most: float | None = None
    share_of_own: str = ""

    @property
    def other(self) -> str:
        """The row that ``row`` is compared with; empty for none."""
        return self.better or self.same or self.no_better


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows beside each other.

    Attributes:
        name: for ``--only``.
        title: heading.
        about: what differs between the rows, and what is the same.
        paper: what the paper found, and where.
        published: figures that the paper printed, by the heading of their column and the row that
            they stand beside.
        rows: names.
        metrics: keys of ``metrics.json`` without their split.
        claims: what is checked.
        found: what was looked into where the claims do not agree; no figure in it.
        curve: a key of the configuration, drawn against the first metric; with ``log`` on a
            logarithmic axis.
        curve_name: what the picture calls it.
        log: see ``curve``.
        learning: whether the losses of its trained rows are drawn, on train and val.
        thresholds: whether the thresholds that val was streamed with are shown, of the first row.
        baselines: whether those who do not look stand below the rows.
        cook: whether it is left out without CaptainCook4D.
    """

    name: str
    title: str
    about: str
    paper: str
    rows: tuple[str, ...]
    metrics: tuple[str, ...]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    found: str = ""
    curve: str = ""
    curve_name: str = ""
    log: bool = False
    learning: bool = False
    thresholds: bool = False
    baselines: bool = False
    cook: bool = False


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        rows: by name, those that others evaluate before these.
        tables: in order of the page.
        metrics: what the page calls each key of ``metrics.json``.
        since: when the data or the settings that all rows share last changed, by data set (``toy``,
            ``captaincook4d``), as date and time in UTC; earlier runs are marked.
    """

    rows: Mapping[str, Row]
    tables: Sequence[Table]
    metrics: Mapping[str, str]
    since: Mapping[str, str] = field(default_factory=dict)

    def select(self, only: Sequence[str], *, cook: bool, without: Sequence[str] = ()) -> list[Row]:
        """Rows to run, with those whose runs they evaluate.

        Args:
            only: ``TABLE`` or ``TABLE/ROW``; empty for all.
            cook: whether there is CaptainCook4D.
            without: likewise, of those that are left out, with what evaluates their runs.

        Raises:
            ConfigError: there is no such table or row, or it needs what is not there.
        """
        wanted = {name for table in self.tables for name in table.rows}
        if only:
            wanted = {name for text in only for name in self._named(text)}
            if not cook and (lacking := sorted(n for n in wanted if self.rows[n].cook)):
                raise ConfigError(
                    f"--only: {', '.join(lacking)} needs the annotation files of CaptainCook4D; "
                    "name their folder with --cook DIR."
                )
        left_out = {name for text in without for name in self._named(text, option="--without")}
        wanted = {n for n in wanted if n not in left_out and self.rows[n].of not in left_out}
        wanted |= {self.rows[name].of for name in wanted} - {""}
        return [row for row in self.rows.values() if row.name in wanted and (cook or not row.cook)]

    def same_models(self, one: str, two: str) -> bool:
        """Whether two rows stream the same trained models, so that seeds belong together."""
        return (self.rows[one].of or one) == (self.rows[two].of or two)

    def _named(self, text: str, *, option: str = "--only") -> Sequence[str]:
        name, _, row = text.partition("/")
        tables = {table.name: table for table in self.tables}
        if name not in tables:
            raise ConfigError(f"{option} {text}: {_unknown('table', name, tables)}")
        if not row:
            return tables[name].rows
        if row not in tables[name].rows:
            raise ConfigError(f"{option} {text}: {_unknown('row', row, tables[name].rows)}")
        return [row]


def read_plan(path: Path = PLAN) -> Plan:
    """Read the plan.

    Raises:
        ConfigError: names all that is wrong in it.
    """
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    where = path.name
    rows = {
        name: _read(Row, {"name": name, **entry}, f"{where}: row {name}")
        for name, entry in data["rows"].items()
    }
    tables = [
        _read(
            Table,
            entry
            | {
                "claims": tuple(
                    _read(Claim, claim, f"{where}: table {entry.get('name')}, claim {i}")
                    for i, claim in enumerate(entry.get("claims", ()), start=1)
                )
            },
            f"{where}: table {entry.get('name')}",
        )
        for entry in data["tables"]
    ]
    plan = Plan(rows, tables, data["metrics"], data.get("since", {}))
    if faults := list(_faults(plan)):
        raise ConfigError("\n".join(f"{where}: {fault}" for fault in faults))
    return plan


def _read(kind: type[_T], entry: Mapping[str, Any], where: str) -> _T:
    """An object of ``kind`` from YAML; lists become tuples."""
    known: dict[str, Any] = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where}: {_unknown('key', key, known)}")
    for name, of in known.items():
        if name not in entry and of.default is MISSING and of.default_factory is MISSING:
            raise ConfigError(f"{where}: has no {name}; add it.")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def _faults(plan: Plan) -> Iterator[str]:
    for row in plan.rows.values():
        if bool(row.of) == bool(row.experiment):
            yield f"row {row.name}: give it an experiment, or a row that it is of; one of the two."
        base = plan.rows.get(row.of)
        if row.of and (base is None or base.of):
            yield f"row {row.name}: of {row.of!r} is no row that trains; name one."
        elif base is not None and (base.cook, base.seeds) != (row.cook, row.seeds):
            yield f"row {row.name}: cook and seeds must be those of {row.of}; write the same."
        for text in row.set:
            if "=" not in str(text):
                yield f"row {row.name}: {text!r} is no KEY=VALUE; write it so."
    for name, time in plan.since.items():
        if name not in _DATA:
            yield f"since: {_unknown('data set', name, _DATA)}"
        if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", str(time)):
            yield f"since: {name}: {time!r} is no time; write 'YYYY-MM-DD HH:MM', in quotes."
    for table in plan.tables:
        named = [*table.rows, *(c.row for c in table.claims)]
        named += [c.other for c in table.claims if c.other]
        for name in named:
            if name not in plan.rows:
                yield f"table {table.name}: {_unknown('row', name, plan.rows)}"
            elif plan.rows[name].cook != table.cook:
                yield f"table {table.name}: row {name} differs in cook; write the same in both."
        for column, figures in table.published.items():
            for name in set(figures) - set(table.rows):
                yield (
                    f"table {table.name}: published {column!r}: {_unknown('row', name, table.rows)}"
                )
        claimed = [c.metric for c in table.claims]
        claimed += [c.share_of_own for c in table.claims if c.share_of_own]
        for key in (*table.metrics, *claimed):
            if key not in plan.metrics:
                yield f"table {table.name}: {_unknown('metric', key, plan.metrics)}"
        for claim in table.claims:
            names = ("better", "same", "no_better", "rises", "falls", "at_least", "at_most")
            if sum(getattr(claim, name) != getattr(Claim, name) for name in names) != 1:
                yield (
                    f"table {table.name}: the claim {claim.says!r} needs one of "
                    f"{', '.join(names[:-1])} and {names[-1]}."
                )
        if typed := re.findall(r"\d*\.\d+", table.found):
            yield (
                f"table {table.name}: found names {', '.join(typed)}, which no run would change; "
                "make it a claim."
            )


def _unknown(what: str, name: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"the nearest is {near[0]!r}" if near else f"there are {', '.join(known)}"
    return f"there is no {what} {name!r}; {hint}."
