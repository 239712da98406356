"""What was written of answered streams is read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.errors import StreamError
from proassist_lit.run_directory import RunDirectory
from proassist_lit.types import Transcript
from tests.report.fakes import cooking_stream


def short(transcript: Transcript) -> Transcript:
    """As a stream file holds it: probabilities in six digits."""
    frames = tuple(
        replace(
            frame,
            speak_prob=round(frame.speak_prob, 6),
            dst_prob=None if frame.dst_prob is None else round(frame.dst_prob, 6),
        )
        for frame in transcript.frames
    )
    return replace(transcript, frames=frames)


def with_summary(transcript: Transcript) -> Transcript:
    *others, last = transcript.references
    return replace(transcript, references=(*others, replace(last, text="", is_summary=True)))


def written(tmp_path: Path) -> tuple[RunDirectory, dict[str, list[Transcript]]]:
    run = RunDirectory(tmp_path / "run")
    one, two = cooking_stream(0).transcript, cooking_stream(1, first_frame=7).transcript
    unknown = replace(one.references[0], supervised=False)
    one = replace(with_summary(one), references=(unknown, *with_summary(one).references[1:]))
    transcripts = {"val": [one], "test": [two, replace(one, stream_id="a/b c")]}
    for split, streams in transcripts.items():
        for transcript in streams:
            run.write_stream(split, transcript)
    run.write_stream_index(transcripts)
    return run, transcripts


def test_streams_are_read_as_they_were_written(tmp_path: Path) -> None:
    run, transcripts = written(tmp_path)
    expected = {split: list(map(short, streams)) for split, streams in transcripts.items()}
    assert run.read_streams() == expected
    assert len(list((run.path / "streams").glob("*.json"))) == 3  # the index is none of them


def test_streams_of_older_versions_are_read(tmp_path: Path) -> None:
    run, transcripts = written(tmp_path)
    for path in (run.path / "streams").glob("*.json"):
        rows = json.loads(path.read_text())
        for row in rows:
            del row["ref_is_summary"], row["supervised"]
        path.write_text(json.dumps(rows))
    older = {"is_summary": False, "supervised": True}
    assert run.read_streams()["test"] == [
        replace(stream, references=tuple(replace(r, **older) for r in stream.references))
        for stream in map(short, transcripts["test"])
    ]


def test_a_missing_index_and_a_damaged_stream_are_named(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"streams\.json: cannot be read.*evaluate RUN"):
        RunDirectory(tmp_path).read_streams()
    run, _ = written(tmp_path)
    path = next((run.path / "streams").glob("val_*.json"))
    rows = json.loads(path.read_text())
    del rows[3]["ref_state"]
    path.write_text(json.dumps(rows))
    with pytest.raises(StreamError, match=r"val_toy_000.*frame 3 of the list.*ref_state"):
        run.read_streams()
    path.write_text("[{")
    with pytest.raises(StreamError, match=r"val_toy_000.*cannot be read"):
        run.read_streams()
