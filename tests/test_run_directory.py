from __future__ import annotations

import json
from pathlib import Path

import pytest

from proassist_lit.atomic import write_text
from proassist_lit.errors import StreamError
from proassist_lit.run_directory import RunDirectory, follow_latest
from tests.judge.fakes import transcript


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize(
    ("saved", "saves", "kept"),
    [(True, False, "old"), (True, True, "new"), (False, False, "new"), (False, True, "new")],
)
def test_config_is_that_of_the_checkpoint_after_an_error(
    error: BaseException, saved: bool, saves: bool, kept: str, tmp_path: Path
) -> None:
    run, config = RunDirectory(tmp_path), tmp_path / "config.yaml"
    config.write_text("old")
    if saved:
        write_text(run.last_checkpoint, "old")

    def fail() -> None:
        with run.config_of_checkpoint():
            config.write_text("new")
            if saves:
                write_text(run.last_checkpoint, "new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert config.read_text() == kept


def test_config_of_a_run_that_goes_on_is_its_own(tmp_path: Path) -> None:
    run, config = RunDirectory(tmp_path), tmp_path / "config.yaml"
    config.write_text("old")
    write_text(run.last_checkpoint, "old")
    with run.config_of_checkpoint():
        config.write_text("new")
    assert config.read_text() == "new"


def test_results_of_a_state_that_training_left_are_no_longer_listed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_stream_index({"test": [transcript("a", said={1: "x"})]})
    (tmp_path / "sweep.json").write_text("[]")
    run.write_metrics({"test/utterance_f1": 0.5})

    run.set_metrics_aside()

    assert run.read_metrics() == {}
    assert json.loads((tmp_path / "metrics_before.json").read_text())["test/utterance_f1"] == 0.5
    assert not (tmp_path / "sweep.json").exists()
    with pytest.raises(StreamError, match=r"streams\.json.*evaluate RUN --out RUN"):
        run.read_streams()


@pytest.mark.parametrize("text", [None, "", "[]", "{", "\ud83d"])
def test_notes_that_cannot_be_read_are_none(text: str | None, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    if text is not None:
        (tmp_path / "notes.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert run.read_notes() == {}
    run.write_notes({"a": "b"})
    assert run.read_notes() == {"a": "b"}


def test_streams_of_names_that_files_cannot_have_lie_apart(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    names = ("P1/cook a", "P1:cook a", "P1_cook_a")
    transcripts = [transcript(name, said={1: name}) for name in names]
    for one in transcripts:
        run.write_stream("test", one)
    run.write_stream_index({"test": transcripts})
    assert run.read_streams() == {"test": transcripts}


def test_the_link_to_the_latest_run_is_followed_once_and_others_are_left(tmp_path: Path) -> None:
    base = tmp_path / "outputs"
    run = RunDirectory(tmp_path / "disk/run")
    base.mkdir()
    (base / "mine").symlink_to(run.path)
    run.point_latest(base)
    followed = follow_latest(base / "latest/checkpoints/best.ckpt")
    RunDirectory(base / "another").point_latest(base)

    assert followed.resolve() == run.path / "checkpoints/best.ckpt"
    assert follow_latest(base / "latest").resolve() == base / "another"
    for path in (base / "mine", tmp_path / "latest", Path("latest/x"), Path("a/b")):
        assert follow_latest(path) == path
