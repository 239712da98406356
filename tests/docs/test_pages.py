"""What the pages say of the code is so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import pytest
import yaml
from torch import Tensor

from proassist_lit.data.conversation import AssistantTurn, Conversation, UserTurn
from proassist_lit.data.record_parser import ROLES
from proassist_lit.data.records import parse_record, record_to_json
from proassist_lit.data.sources.dst import conversation_to_row, row_to_conversation
from proassist_lit.metrics.lm import TeacherForcedMetrics
from proassist_lit.metrics.match_windows import DEFAULT_WINDOW, MATCH_WINDOWS
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sequence.ground_truth import references
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.evaluate import make_transcript, stream_conversation
from proassist_lit.streaming.forced_turns import ForcedTurn
from proassist_lit.types import KINDS, FrameOutput, Transcript
from tests.data.dst_rows import told
from tests.docs.pages import PAGES, ROOT, blocks
from tests.exchange.fakes import make_run
from tests.fakes import dialogue, random_features

DOCS = ROOT / "docs"
ASKED_FOR = {"utterance_meteor", "forced_bleu_4"}
"""Keys that another setting or an optional package brings."""


def text_of(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def nav() -> set[str]:
    def files(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        values = part.values() if isinstance(part, dict) else part
        return [file for value in values for file in files(value)]

    return set(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))


def test_every_page_is_in_the_navigation() -> None:
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert there == nav()


def perfect() -> Transcript:
    """A stream answered as its reference is, which corrects a mistake."""
    script = read_script(dialogue())
    frames = [
        FrameOutput(
            frame_idx=moment.frame_idx,
            time_s=moment.frame_idx / 2,
            speak_prob=float(bool(reference.text)),
            dst_prob=float(bool(reference.updates)),
            speak=bool(reference.text),
            dst=bool(reference.updates),
            text=reference.text,
            updates=reference.updates,
            state=reference.state,
        )
        for moment, reference in zip(script.moments, references(script), strict=True)
    ]
    stream = make_transcript(dialogue(), script, frames)
    return replace(
        stream, references=tuple(replace(r, kinds=("correction",)) for r in stream.references)
    )


def test_metrics_of_the_page_are_those_of_a_result() -> None:
    forced = TeacherForcedMetrics()
    forced.update([ForcedTurn(2, 2, 1, 0.5, 0)], 2.0)
    made = set(evaluate_transcripts([perfect()], Matcher(HashedWordSimilarity()))) | set(
        forced.compute()
    )
    named = set(
        re.findall(
            r"`((?:utterance|speak|dst|forced|content|correction)_\w+)`", text_of("metrics.md")
        )
    )

    assert named - ASKED_FOR <= made
    of_dst_head = {name.replace("speak_", "dst_") for name in named}
    of_kinds = {name.replace("correction", kind) for name in named for kind in KINDS}
    assert made <= named | of_dst_head | of_kinds


def test_match_windows_of_the_page_are_ours() -> None:
    cells = re.findall(r"\| (\w+) \| (-[\d.]+) / ([\d.]+) (?=\|)", text_of("metrics.md"))
    assert {name: (float(a), float(b)) for name, a, b in cells} == {
        name: (window.start_s, window.end_s) for name, window in MATCH_WINDOWS.items()
    }
    assert f"{DEFAULT_WINDOW.start_s}/{DEFAULT_WINDOW.end_s}" in text_of("metrics.md")


def test_strategies_of_the_page_are_ours() -> None:
    row = re.compile(r"^\| `(\w+)`(?: \(default\))? \| .* \| `splitting", re.MULTILINE)
    rows = row.findall(text_of("streaming.md"))
    assert rows == [strategy.value for strategy in Strategy]


@dataclass(frozen=True)
class OneStream:
    """A split with one recording."""

    conversations: tuple[Conversation, ...] = (dialogue(),)

    def features(self, _: Conversation) -> Tensor:
        return random_features().float()


def test_live_stream_of_the_page_answers_as_the_recorded_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [b.text for b in blocks(DOCS / "streaming.md") if b.language == "python"]
    sizes = TinyConfig(vocab_size=330, hidden_size=16, num_layers=2, num_heads=2, mlp_size=24)
    _, model = make_run(tmp_path / "outputs/latest", ModelConfig(tiny=sizes))
    RunDirectory(tmp_path / "outputs/latest").write_metrics(
        {"val/theta_speak": 0.5, "val/theta_dst": 0.5}
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proassist_lit.data.dataset.load_data", lambda _: {"test": OneStream()})

    exec(code, {})

    config = StreamConfig(theta_speak=0.5, theta_dst=0.5)
    assert model.chat is not None
    recorded = stream_conversation(model, model.chat, dialogue(), random_features().float(), config)
    said = [f"{f.time_s:.1f} s: {f.text}" for f in recorded.frames if f.speak]
    assert len(said) > 1
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in said)


def test_walk_of_the_page_acts_as_the_recorded_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [b.text for b in blocks(DOCS / "migrating.md") if b.language == "python"]
    sizes = TinyConfig(vocab_size=330, hidden_size=48, num_layers=2, num_heads=2, mlp_size=24)
    _, model = make_run(tmp_path / "outputs/latest", ModelConfig(tiny=sizes, separator=","))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proassist_lit.data.dataset.load_data", lambda _: {"test": OneStream()})

    exec(code, {})

    config = StreamConfig(theta_speak=0.5, theta_dst=0.5, max_new_tokens=32, max_dst_tokens=32)
    assert model.chat is not None
    assert model.chat.separator_ids
    recorded = stream_conversation(model, model.chat, dialogue(), random_features().float(), config)
    acts = [(i, f.text) for i, f in enumerate(recorded.frames) if f.speak or f.dst]
    walked = re.split(r"^frame (\d+): ", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert [int(index) for index in walked[::2]] == [index for index, _ in acts]
    assert all(text in said for (_, text), said in zip(acts, walked[1::2], strict=True))
    assert 1 < len(acts) < len(recorded.frames) - 1  # silence behind silence: the separator


def who_speaks_by_time(conversation: Conversation) -> list[tuple[bool, bool]]:
    """Whether somebody else, and whether the assistant speaks at each frame, by their times."""
    frames = range(conversation.start_frame_idx, conversation.end_frame_idx)

    def at(kind: type[UserTurn | AssistantTurn]) -> set[int]:
        turns = [turn for turn in conversation.turns if isinstance(turn, kind)]
        return {ceil(turn.time_s * conversation.fps) for turn in turns if turn.time_s is not None}

    return [(i in at(UserTurn), i in at(AssistantTurn)) for i in frames]


def test_record_of_the_page_is_read_and_its_keys_are_told() -> None:
    [block] = [b for b in blocks(DOCS / "records.md") if b.language == "json" and not b.title]
    raw = json.loads(block.text)
    read = parse_record(raw, where="records.md")
    assert record_to_json(read) == raw
    assert {turn["role"] for turn in raw["conversation"]} == set(ROLES)
    assert not read.extra
    assert not any(turn.extra for turn in read.turns)
    tables = [line for line in text_of("records.md").splitlines() if line.startswith("|")]
    told = set(re.findall(r"\w+", " ".join(tables)))
    assert {*raw, *(key for turn in raw["conversation"] for key in turn if key != "role")} <= told
    assert set(KINDS) <= told

    script = read_script(read)
    for moment, turns in zip(script.moments, who_speaks_by_time(read), strict=True):
        assert (bool(moment.before), bool(moment.utterance)) == turns


def test_dst_rows_of_the_page_are_read_and_their_keys_are_told() -> None:
    found = [b for b in blocks(DOCS / "records.md") if b.language == "json" and b.title]
    [turns], [events] = (json.loads(block.text) for block in found)
    text = text_of("records.md").partition("## Rows of the DST extension")[2].partition("\n## ")[0]
    tables = " ".join(line for line in text.splitlines() if line.startswith("|"))
    for row, kind in ((turns, "conversation"), (events, "events")):
        assert conversation_to_row(row_to_conversation(row, "records.md")) == row
        keys = {*row, *(key for turn in row[kind] for key in turn)} - {kind}
        assert keys <= set(re.findall(r"\w+", tables))
    assert told(row_to_conversation(turns, "records.md")) == [
        *("S You are a proactive assistant.", "U I want to make soup."),
        *("10-11", "A Cut the leeks first.", "11-13", "S1->start"),
        *("13-21", "S1->complete;S2->start", "A Well done. Now stir."),
        *("21-29", "S2->complete", "29-30"),
    ]
    read = row_to_conversation(events, "records.md")
    assert told(read) == [
        *("0-4", "S1->start", "4-13", "S1->complete;S2->start", "A Well done. Now stir.", "13-20"),
    ]
    assert (read.fps, read.clip_idx, read.num_tokens_per_img) == (2, 0, 1)
    styles = [turn["content"] for turn in turns["conversation"] if turn["role"] == "DST_UPDATE"]
    assert [type(style) for style in styles] == [list, list, str]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_page_names_files_that_are_there(page: Path) -> None:
    own = {block.title for block in blocks(page)}
    file = re.compile(r"`((?:[a-z_]+/)+\w+\.(?:py|yaml|md))`")
    for name in file.findall(page.read_text("utf-8")):
        there = (ROOT / name).exists() or (ROOT / "proassist_lit" / name).exists()
        assert there or name in own or "NAME" in name, f"{page.name} names {name}"
