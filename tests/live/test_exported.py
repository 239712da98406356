"""Exported folders watch as the runs that they came from, with the data at hand or without."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.config_schema import write_config
from proassist_lit.data.feature_content import read_content, write_content
from proassist_lit.data.records import write_records

from .trained import TrainedRun, script_words

pytestmark = pytest.mark.road

Captured = pytest.CaptureFixture[str]
MADE = {
    "encoder": "thumbnail4", "revision": "1", "layer": -1, "preprocessing": "average",
    "dtype": "float32", "device": "cpu",
}  # fmt: skip
GONE = ("--set", "data.cache=nowhere", "--set", "data.root=nowhere")


def watch(assistant: Path, film: Path, *options: str) -> int:
    return main(["watch", str(assistant), str(film), "--device", "cpu", "--end", "12", *options])


def rows(folder: Path) -> object:
    return json.loads((folder / "film.json").read_text())


@pytest.fixture(scope="module")
def exported(run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "assistant"
    assert main(["export", str(run.folder), str(folder)]) == 0
    return folder


def prepared_run(run: TrainedRun, folder: Path, made: object) -> Path:
    """The run as if it had been trained on prepared data of three frames a second."""
    path = run.data.feature_path(run.conversation)
    record = replace(run.conversation, dataset="own", frames_file="frames/v.arrow", fps=3.0)
    for split in ("train", "val", "test"):
        write_records(folder / f"data/{split}.jsonl", [record])
    notes = {} if made is None else {"made": json.dumps(made)}
    features = folder / "data/own/features/eyes/v.safetensors"
    write_content(features, read_content(path)[0], notes)
    data = replace(run.config.data, source="proassist", root=str(folder / "data"), encoder="eyes")
    new = folder / "run"
    write_config(replace(run.config, data=data), new / "config.yaml")
    for name in ("checkpoints", "tokenizer", "metrics.json"):
        (new / name).symlink_to(run.folder / name)
    return new


def test_a_folder_watches_as_its_run(
    run: TrainedRun, exported: Path, film: Path, tmp_path: Path
) -> None:
    options = ["--task", run.conversation.id, "--user", "recorded", "--json", "--end", "32"]
    for name, assistant in (("run", run.folder), ("folder", exported)):
        with pytest.MonkeyPatch.context() as patch:
            script_words(patch)
            assert watch(assistant, film, *options, "--out", str(tmp_path / name)) == 0
    assert rows(tmp_path / "run") == rows(tmp_path / "folder")
    assert any(row["text"] for row in rows(tmp_path / "run"))  # type: ignore[attr-defined]


def test_a_folder_does_without_its_data(
    exported: Path, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "tea.json").write_text('{"prompt": "Help.", "steps": ["boil", "steep"]}')
    task = ["--task", str(tmp_path / "tea.json"), "--json"]
    assert watch(exported, film, *task, "--out", str(tmp_path / "with")) == 0
    assert watch(exported, film, *GONE, *task, "--out", str(tmp_path / "without")) == 0
    assert rows(tmp_path / "with") == rows(tmp_path / "without")
    assert not Path("nowhere").exists()  # nothing was drawn anew
    capsys.readouterr()
    assert watch(exported, film, *GONE) == 2
    assert "data that the assistant was trained on is not here" in capsys.readouterr().err
    assert watch(exported, film, *GONE, "--task", "tea_1") == 2
    said = capsys.readouterr().err
    assert re.search("'tea_1': is no JSON file and no recording .*, which is not here", said)


def test_the_demo_of_a_folder_without_its_data_asks_for_a_task(
    exported: Path, capsys: Captured
) -> None:
    pytest.importorskip("fastapi", reason="the extra demo is not installed")
    assert main(["demo", str(exported), "--device", "cpu", "--port", "0", *GONE]) == 2
    assert "data that the assistant was trained on is not here" in capsys.readouterr().err


def test_a_folder_knows_how_the_features_of_its_data_were_made(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    own = prepared_run(run, tmp_path, MADE)
    assert main(["export", str(own), str(tmp_path / "out")]) == 0
    _, about = load_assistant(tmp_path / "out")
    assert (about.fps, about.features) == (3.0, MADE)
    (tmp_path / "tea.json").write_text('{"prompt": "Help."}')
    task = ["--task", str(tmp_path / "tea.json")]
    for assistant, gone in ((own, ()), (tmp_path / "out", GONE)):
        capsys.readouterr()
        assert watch(assistant, film, *gone, *task) == 0
        assert "3 frames a second" in capsys.readouterr().out


def test_a_folder_of_annotated_data_does_without_the_annotations(
    run: TrainedRun, film: Path, tmp_path: Path
) -> None:
    data = replace(run.config.data, source="captaincook4d", root=str(tmp_path / "nowhere"))
    new = tmp_path / "run"
    write_config(replace(run.config, data=data), new / "config.yaml")
    for name in ("checkpoints", "tokenizer", "metrics.json"):
        (new / name).symlink_to(run.folder / name)
    assert main(["export", str(new), str(tmp_path / "out")]) == 0
    (tmp_path / "tea.json").write_text('{"prompt": "Help."}')
    assert watch(tmp_path / "out", film, "--task", str(tmp_path / "tea.json")) == 0


def test_an_encoder_that_is_named_is_run_as_the_features_were_made(
    run: TrainedRun, film: Path, tmp_path: Path
) -> None:
    own = prepared_run(run, tmp_path, {**MADE, "revision": "older"})
    assert main(["export", str(own), str(tmp_path / "out")]) == 0
    (tmp_path / "tea.json").write_text('{"prompt": "Help."}')
    options = ["--task", str(tmp_path / "tea.json"), "--encoder", "thumbnail4"]
    for assistant, gone in ((own, ()), (tmp_path / "out", GONE)):
        with pytest.warns(UserWarning, match=r"weights are 1, but .* made with older"):
            assert watch(assistant, film, *gone, *options) == 0


def test_an_encoder_that_nobody_knows_must_be_named(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    own = prepared_run(run, tmp_path, None)
    assert main(["export", str(own), str(tmp_path / "out")]) == 0
    (tmp_path / "tea.json").write_text('{"prompt": "Help."}')
    options = [*GONE, "--task", str(tmp_path / "tea.json")]
    assert watch(tmp_path / "out", film, *options) == 2
    assert "out: does not say which encoder made the features" in capsys.readouterr().err
    assert watch(tmp_path / "out", film, *options, "--encoder", "thumbnail4") == 0


def test_a_run_is_exported_without_its_data_but_says_what_it_does_not_know(
    run: TrainedRun, tmp_path: Path, capsys: Captured
) -> None:
    own = prepared_run(run, tmp_path, MADE)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert main(["export", str(own), str(tmp_path / "out")]) == 0
    assert "the data of the run is not here, 2 frames a second are" in capsys.readouterr().err
    assert load_assistant(tmp_path / "out")[1].features == {}


def test_a_run_without_a_tokenizer_is_refused(
    run: TrainedRun, film: Path, tmp_path: Path, capsys: Captured
) -> None:
    own = prepared_run(run, tmp_path, MADE)
    (own / "tokenizer").unlink()
    assert watch(own, film) == 2
    assert re.search("run/tokenizer: there is no tokenizer", capsys.readouterr().err)


def test_what_is_watched_fits_the_backbone(
    exported: Path, film: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = (100, "learned positions for")
    monkeypatch.setattr("proassist_lit.model.assistant.context_limit", lambda lm: limit)
    assert watch(exported, film) == 2
    assert "lower stream.max_context" in capsys.readouterr().err


def test_help_says_whose_stepping_it_is(capsys: Captured) -> None:
    for command in ("watch", "demo"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "compat=proassist is stepped by our own rules" in said
        assert "a folder that export or import wrote" in said
