from __future__ import annotations

from pathlib import Path

import pytest

from proassist_lit.composition import compose
from proassist_lit.config import RunConfig
from proassist_lit.config_check import ConfigFiles
from proassist_lit.config_help import help_text
from proassist_lit.data import sources
from proassist_lit.data.config import DataConfig
from proassist_lit.data.dataset import load_data
from proassist_lit.data.sources.registry import SOURCES, find_source
from proassist_lit.data.sources.source import AnnotatedSource, InventedSource, PreparedSource
from proassist_lit.errors import ConfigError
from proassist_lit.sweep.settings import SearchSettings
from tests.app import REPO_CONF

NEW = '''
from proassist_lit.data.sources.source import AnnotatedSource
from proassist_lit.data.timeline import Step, Timeline

def read(root):
    """As many recordings a split as its file says."""
    step = Step(id="S1", name="dig", verb="dig", item="hole", start_s=1.0, end_s=2.0)
    return {
        split: [
            Timeline(dataset="new", video_uid=f"{split}{i}", task="dig", duration_s=3.0,
                     steps=(step,))
            for i in range(int((root / split).read_text()))
        ]
        for split in ("train", "val")
    }

SOURCE = AnnotatedSource(files="new annotations", read=read)
'''


@pytest.fixture
def new_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a source that is one more file."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "new_source.py").write_text(NEW)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(folder)])
    return "new_source"


def test_sources_are_those_of_the_files() -> None:
    assert len(SOURCES) == 4
    kinds = {name: type(find_source(name)) for name in SOURCES}
    assert kinds == {
        "captaincook4d": AnnotatedSource,
        "dst": PreparedSource,
        "proassist": PreparedSource,
        "toy": InventedSource,
    }


@pytest.mark.parametrize("name", ["toi", "", "../toy", "sources.toy", "registry", "spreadsheet"])
def test_unknown_source_is_told_the_known_ones(name: str) -> None:
    message = r"data\.source must be captaincook4d\|dst\|proassist\|toy, got '.*'; the nearest is"
    with pytest.raises(ConfigError, match=message):
        DataConfig(source=name)


def test_unknown_source_on_the_command_line_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"data\.source must be .*got 'toi'; .* is 'toy'"):
        compose(["data.source=toi"], conf_dir=REPO_CONF)


def test_help_lists_the_sources() -> None:
    text = help_text("train.py", ConfigFiles(REPO_CONF), RunConfig(), SearchSettings())
    assert "data.source: captaincook4d|dst|proassist|toy = toy" in text


def test_one_file_makes_a_source(new_source: str, tmp_path: Path) -> None:
    (tmp_path / "train").write_text("4")
    (tmp_path / "val").write_text("1")
    assert new_source in list(SOURCES)
    with pytest.raises(ConfigError, match=r"data\.root is empty; .* folder of the new annotations"):
        DataConfig(source=new_source)

    config = DataConfig(
        source=new_source, root=str(tmp_path), cache=str(tmp_path / "cache"), max_train=2
    )
    data = load_data(config)

    assert {c.video_uid for c in data["train"]} == {"train0", "train1"}  # of recordings
    assert len(data["train"]) == 2 * len(config.dialogue.user_types)
    assert len(data["val"]) == 1
    assert not config.is_prepared


def test_a_share_is_of_the_records_not_of_rounding() -> None:
    def size(share: float, number: int = 100) -> int:
        return len(DataConfig(share=share).limited("train", list(range(number))))

    assert [size(share) for share in (0.07, 0.55, 0.551, 1.0)] == [7, 55, 56, 100]
    assert (size(0.001), size(0.001, 0)) == (1, 0)
