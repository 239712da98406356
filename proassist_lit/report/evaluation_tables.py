"""The tables of an evaluation: utterances, state updates, thresholds tried, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proassist_lit.evaluation.result import EvaluationResult, SweepPoint
from proassist_lit.metrics.matching import UtteranceMatch
from proassist_lit.metrics.summary import dataset_prefix
from proassist_lit.report.dashboard import Cell, DataTable
from proassist_lit.report.outcomes import state_changes, utterances
from proassist_lit.report.scoreboard import make_scoreboard
from proassist_lit.types import Transcript

Matches = Mapping[str, Sequence[UtteranceMatch]]
"""Matches of the streams of every split, aligned with its transcripts."""


def evaluation_tables(result: EvaluationResult, matches: Matches) -> dict[str, DataTable]:
    """Every table that ``result`` has something for, by name."""
    written = result.transcripts if result.config.words else {}
    tables = {
        "utterances": utterance_table(written, matches),
        "state_updates": update_table(written),
        "comparison": comparison_table(result.metrics),
        "data_sets": data_set_table(result),
        "sweep": sweep_table(result.sweep),
    }
    return {name: table for name, table in tables.items() if table.rows}


def utterance_table(transcripts: Mapping[str, Sequence[Transcript]], matches: Matches) -> DataTable:
    """Every utterance of every stream, matched or not; time and frame are the reference's.

    What is redundant has the assistant's time and frame, there being no other.
    """
    columns = (
        "split", "stream", "time_s", "frame", "outcome", "score", "late_s", "reference",
        "generated",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for split, streams in transcripts.items():
        for transcript, match in zip(streams, matches[split], strict=True):
            for u in utterances(transcript, match):
                time_s = u.gen_time_s if u.ref_time_s is None else u.ref_time_s
                rows.append(
                    (
                        split, transcript.stream_id, time_s, u.frame_idx, u.outcome.value,
                        u.score, u.late_s, u.reference, u.generated,
                    )
                )  # fmt: skip
    return DataTable(columns=columns, rows=tuple(rows))


def update_table(transcripts: Mapping[str, Sequence[Transcript]]) -> DataTable:
    """Every state update, of the reference or predicted; a pair stands in one row."""
    columns = (
        "split", "stream", "frame", "outcome", "step", "step_name", "transition",
        "reference_time_s", "predicted_time_s",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for split, streams in transcripts.items():
        for transcript in streams:
            names = dict(transcript.steps)
            rows += [
                (
                    split, transcript.stream_id, change.frame_idx, change.outcome.value,
                    change.step, names.get(change.step, ""), change.transition.value,
                    change.ref_time_s, change.gen_time_s,
                )
                for change in state_changes(transcript)
            ]  # fmt: skip
    return DataTable(columns=columns, rows=tuple(rows))


def comparison_table(metrics: Mapping[str, float | str]) -> DataTable:
    """Metrics down; val, test and the baselines across."""
    board = make_scoreboard(metrics)
    rows = tuple((row.name, *row.values) for row in (*board.headline, *board.rest))
    return DataTable(columns=("metric", *board.columns), rows=rows)


def data_set_table(result: EvaluationResult) -> DataTable:
    """A row for every data set of a split that has metrics of its own: ``test/ego4d/speak_f1``."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for split, streams in result.transcripts.items():
        for name in sorted({transcript.dataset for transcript in streams}):
            prefix = f"{split}/{dataset_prefix(name)}"
            values = {
                key.removeprefix(prefix): value
                for key, value in result.metrics.items()
                if key.startswith(prefix)
            }
            if values:
                found[split, name] = {**values}
    columns = sorted({column for values in found.values() for column in values})
    return DataTable(
        columns=("split", "data_set", *columns),
        rows=tuple(
            (split, name, *(values.get(column) for column in columns))
            for (split, name), values in found.items()
        ),
    )


def sweep_table(sweep: Mapping[str, Sequence[SweepPoint]]) -> DataTable:
    """A row for every pair of thresholds that was tried."""
    points = [(split, point) for split, tried in sweep.items() for point in tried]
    points.sort(key=lambda item: (item[0], item[1].theta_speak, item[1].theta_dst))
    columns = sorted({name for _, point in points for name in point.metrics})
    return DataTable(
        columns=("split", "theta_speak", "theta_dst", *columns),
        rows=tuple(
            (split, p.theta_speak, p.theta_dst, *(p.metrics.get(column) for column in columns))
            for split, p in points
        ),
    )
