from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proassist_lit.config_schema import write_config
from proassist_lit.data.records import write_records
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.lit.run import train
from proassist_lit.run_directory import RunDirectory
from tests.commands.judging import make_run
from tests.fakes import dialogue
from tests.lit.test_run import config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three dialogues of two files, in a folder."""
    write_records(tmp_path / "data/a.jsonl", [dialogue(), dialogue(video_uid="second")])
    write_records(tmp_path / "data/b.json", [dialogue(video_uid="third")])
    (tmp_path / "data/manifest.json").write_text("{}")
    return tmp_path / "data"


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server to judge and no key of one is set."""
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "JUDGE_KEY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def run(tmp_path: Path, no_server: None) -> Path:
    """An evaluated run of four test streams, to be judged."""
    make_run(tmp_path / "run", "mine")
    RunDirectory(tmp_path / "run").write_metrics({"test/utterance_f1": 0.5, "judge/val/overall": 1})
    return tmp_path / "run"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run, trained once for the tests of a file."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        small = config(folder)  # with two streams of test
        small.data.toy = ToyConfig(num_train=1, num_val=1, num_test=2)
        write_config(small, folder / "run/config.yaml")
        train(small, folder / "run")
        yield folder / "run"
