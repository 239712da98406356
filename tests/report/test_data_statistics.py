from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from proassist_lit.data import records
from proassist_lit.data.conversation import AssistantTurn, FramesTurn, UserTurn
from proassist_lit.data.records import record_to_json
from proassist_lit.errors import RecordError
from proassist_lit.report.data_chat import choose_chat
from proassist_lit.report.data_features import CheckedFeatures
from proassist_lit.report.data_files import find_data_files, read_data_file
from proassist_lit.report.data_report import DataReport, class_balance, overview, spreads
from proassist_lit.report.data_statistics import (
    Bin,
    ClassBalance,
    DataStatistics,
    Distribution,
    gather_statistics,
)
from tests.data.dst_rows import EVENTS
from tests.data.dst_rows import row as dst_row
from tests.fakes import dialogue, word_chat

SHORT = dialogue(
    (
        FramesTurn(start=4, end=6),
        AssistantTurn(content="wash"),
        FramesTurn(start=6, end=7),
        UserTurn(content="how many"),
        FramesTurn(start=7, end=12),
        AssistantTurn(content="one"),
    ),
    steps=(),
    video_uid="short",
)
"""Frames 4 to 11; spoken at 5 and 11, neither at 6."""


def both() -> DataStatistics:
    return gather_statistics([dialogue(), SHORT], word_chat())


def test_statistics_of_two_dialogues_counted_by_hand() -> None:
    found = both()

    assert (found.num_records, found.num_videos, found.num_frames) == (2, 2, 10 + 8)
    assert found.duration_s == 9.0  # 18 frames at 2 fps
    assert found.num_utterances == 4 + 2
    assert found.num_user_turns == 2 + 1
    assert found.num_updates == 3
    # Frames 10, 14 and 17 are spoken at; 16 precedes the user, 19 is the last: neither.
    assert found.speak == ClassBalance(3 + 2, 5 + 5, 2 + 1)
    # Updates follow 13 and 14; SHORT has no steps, so no update decision at all.
    assert found.dst == ClassBalance(2, 6, 2 + 8)
    assert found.speak.rate == 5 / 18
    # In seconds at 2 fps: from 10 to 14, from 14 to 17, and in SHORT from 5 to 11.
    assert found.gap_s.values == (1.5, 2.0, 3.0)
    assert found.utterance_words.values == (1, 1, 2, 2, 2, 3)


def test_statistics_count_the_tokens_that_training_sees() -> None:
    chat = word_chat()
    # SHORT in the compact format: BOS; 8 frames; wash and one with opening and end; user likewise.
    assert gather_statistics([SHORT], chat).sequence_tokens.values == (1 + 8 + 3 + 3 + 4,)
    found = gather_statistics([SHORT], chat, num_tokens_per_img=5)
    assert found.sequence_tokens.values == (1 + 8 * 5 + 3 + 3 + 4,)
    assert found.tokens_per_image == (5,)


def test_videos_are_counted_once_and_frames_as_often_as_they_are_watched() -> None:
    found = gather_statistics([SHORT, SHORT], word_chat())
    assert (found.num_videos, found.num_frames) == (1, 16)


def test_distribution_of_hand() -> None:
    values = Distribution.of([5, 1, 4, 2])
    assert (values.minimum, values.median, values.p95, values.maximum) == (1, 3, 5, 5)
    # Nearest rank: 95 % of 40 values are 38.
    assert Distribution.of(range(1, 41)).p95 == 38
    assert Distribution.of(range(1, 21)).p95 == 19


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        ([], []),
        ([7], [(7, 8, 1)]),
        ([1, 1, 3], [(1, 2, 2), (2, 3, 0), (3, 4, 1)]),
        ([0.0, 0.3, 0.6, 1.0], [(0.0, 0.1, 1), (0.1, 0.2, 0), (0.2, 0.3, 0), (0.3, 0.4, 1),
                                (0.4, 0.5, 0), (0.5, 0.6, 0), (0.6, 0.7, 1), (0.7, 0.8, 0),
                                (0.8, 0.9, 0), (0.9, 1.0, 0), (1.0, 1.1, 1)]),
        ([1] * 10 + [2] * 10 + [900], [(1, 2, 10), (2, 3, 10), (3, None, 1)]),
    ],
)  # fmt: skip
def test_histogram_has_round_bins_and_an_open_tail(
    values: list[float], bins: list[tuple[float, float | None, int]]
) -> None:
    assert Distribution.of(values).histogram() == tuple(Bin(*bin_) for bin_ in bins)


@pytest.mark.parametrize("top", [3, 17, 250, 99_999])
def test_histogram_counts_every_value_once_in_few_bins(top: int) -> None:
    values = Distribution.of([i * i % top / 7 for i in range(300)])
    bins = values.histogram()
    assert sum(bin_.count for bin_ in bins) == 300
    assert len(bins) <= 13
    for bin_ in bins:
        end = math.inf if bin_.high is None else bin_.high
        assert bin_.count == sum(bin_.low - 1e-9 <= v < end - 1e-9 for v in values.values)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def good() -> str:
    return json.dumps(record_to_json(SHORT))


def test_faulty_file_gives_every_fault_and_its_sound_records(tmp_path: Path) -> None:
    raw = record_to_json(SHORT)
    bad = json.dumps(raw | {"fps": 0, "dataset": 3})
    path = write(tmp_path / "a.jsonl", good(), bad, "{", "", good())
    file = read_data_file(path)
    assert [re.sub(r".*a.jsonl:(\d).*", r"\1", str(fault)) for fault in file.faults] == list("223")
    assert [c.source for c in file.conversations] == [f"{path}:1", f"{path}:5"]

    listed = tmp_path / "a.json"
    listed.write_text(f"[{bad},{good()}]")
    file = read_data_file(listed)
    assert len(file.faults) == 2
    assert [c.source for c in file.conversations] == [f"{listed}[1]"]


def test_unreadable_file_is_no_empty_one(tmp_path: Path) -> None:
    missing = read_data_file(tmp_path / "none.jsonl")
    assert not missing.is_readable
    assert "cannot be read: No such file" in str(missing.faults[0])
    empty = read_data_file(write(tmp_path / "empty.jsonl"))
    assert empty.is_readable
    assert "holds no records" in str(empty.faults[0])


def test_folders_give_their_prepared_files_only(tmp_path: Path) -> None:
    deep = write(tmp_path / "d/prepared/a.jsonl", "", good())
    broken = write(tmp_path / "broken.jsonl", "{")
    listed = write(tmp_path / "l.json", f"[{good()}]")
    timelines = write(tmp_path / "timelines.jsonl", '{"video_uid": "v"}')
    manifest = write(tmp_path / "manifest.json", "{}")
    write(tmp_path / "notes.txt", good())
    found = find_data_files([tmp_path, deep])
    assert set(found.paths) == {deep, broken, listed}
    assert len(found.paths) == 3
    assert set(found.left_out) == {timelines, manifest}
    # Named outright, a file is read whatever it holds.
    assert find_data_files([manifest]).paths == (manifest,)
    with pytest.raises(RecordError, match=r"empty: no prepared file below this folder; give"):
        find_data_files([write(tmp_path / "empty/x.txt").parent])


def report(tmp_path: Path, *, faulty: bool) -> DataReport:
    files = [read_data_file(write(tmp_path / "<a>.jsonl", good()))]
    if faulty:
        files.append(read_data_file(write(tmp_path / "b.jsonl", "{")))
    return DataReport(
        files=tuple(files),
        statistics=both(),
        tokens="Tokens of <words>.",
        features=CheckedFeatures(),
    )


def test_terminal_shows_the_numbers_and_the_bars(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    console.print(report(tmp_path, faulty=False))
    text = console.file.getvalue()
    assert re.search(r"speak +5 +10 +3 +1 : 2 : 0\.6 +27\.78%", text)
    assert re.search(r"utterance length \(words\) +1 +2 +3 +3 *\n", text)
    assert re.search(r"2 +█{24} +3 ", text)
    assert re.search(r"3 +█{8} +1 ", text)


def test_page_is_self_contained_escaped_and_complete(tmp_path: Path) -> None:
    made = report(tmp_path, faulty=True)
    page = made.to_html()
    assert not re.search(r"https?:|<script|<link|src=|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert "<a>" not in page
    assert "&lt;a&gt;.jsonl: 1 record, no faults" in page
    assert "b.jsonl:1: not valid JSON" in page
    assert "Files: 1 fault<" in page
    assert page.count("<svg") == 3
    assert "<title>2 words: 3</title>" in page
    assert made.statistics is not None
    for rows in (overview, class_balance, spreads):
        for row in rows(made.statistics):
            assert all(cell in page for cell in row)


def test_report_without_a_sound_record(tmp_path: Path) -> None:
    file = read_data_file(write(tmp_path / "b.jsonl", "{"))
    made = DataReport(files=(file,), statistics=None, tokens="", features=CheckedFeatures())
    assert "nothing to count" in made.to_html()
    assert made.num_faults == 1
    assert made.fault_lines()[0].endswith("b.jsonl: 0 sound records, 1 fault")


def test_no_decision_has_no_rate() -> None:
    rows = class_balance(gather_statistics([SHORT], word_chat()))
    assert rows[1] == ["update", "0", "0", "8", "–", "–"]


def test_rows_of_the_dst_extension_stand_beside_records(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", good(), json.dumps(dst_row()))
    bad = {**dst_row(), "fps": 0, "end_frame_idx": 5}
    (tmp_path / "dst.json").write_text(json.dumps([EVENTS, bad]))
    found = find_data_files([tmp_path])
    files = [read_data_file(path) for path in found.paths]
    assert [path.name for path in found.paths] == ["a.jsonl", "dst.json"]
    assert [len(file.conversations) for file in files] == [2, 1]
    assert [len(file.faults) for file in files] == [0, 2]
    assert all("dst.json[1]: " in str(fault) for fault in files[1].faults)
    conversations = [c for file in files for c in file.conversations]
    counted = gather_statistics(conversations, choose_chat(conversations, None, None)[0])
    assert (counted.num_records, counted.num_frames) == (3, 8 + 20 + 20)
    assert counted.num_updates == 3 + 3
    assert counted.dst.pos == 2 + 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_file_of_a_folder_is_parsed_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [good(), json.dumps(record_to_json(SHORT) | {"fps": 0}), good()]
    text = "\n".join(lines) if name.endswith("l") else f" [{','.join(lines)}]"
    (tmp_path / name).write_text(text)
    parsed = []
    load = records.load_json
    monkeypatch.setattr(
        records, "load_json", lambda text, where: parsed.append(where) or load(text, where)
    )
    (path,) = find_data_files([tmp_path]).paths
    file = read_data_file(path)
    assert (len(file.conversations), len(file.faults)) == (2, 1)
    assert len(parsed) == (3 if name.endswith("l") else 1)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("[]", False), ("[ ]", False), ("[3]", False), ("", True), ("[", True),
     ('[{"a": 1}, {', False), ('{"events": []}', True), (' [ {"conversation": 1}, {', True),
     ("\ufeff{}", False)],
)  # fmt: skip
def test_json_files_are_known_by_their_first_entry(text: str, kept: bool, tmp_path: Path) -> None:
    write(tmp_path / "z.jsonl", good())
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert (path in find_data_files([tmp_path]).paths) is kept
