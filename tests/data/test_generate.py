from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from proassist_lit.data import generate as module
from proassist_lit.data.config import DataConfig
from proassist_lit.data.generate import generate, generated_folder, read_timelines
from proassist_lit.data.sources.toy import ToyConfig, make_toy
from proassist_lit.errors import ConfigError
from tests.data.generated import data_config

ROOT = Path(__file__).parents[2]


def test_without_a_terminal_a_line_names_the_folder_that_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_draw_one", lambda job: None)
    config = data_config(tmp_path, toy=ToyConfig(num_train=4, num_val=2, num_test=2))
    folder = generate(config)
    assert capsys.readouterr().err == f"drawing 8 recordings into {folder}\n"
    generate(config)
    assert capsys.readouterr().err == ""  # it is there


SCRIPT = """
import sys
from proassist_lit.data import generate
from proassist_lit.data.sources.toy import ToyConfig
from tests.data.generated import data_config

print("once")
generate.num_processors = lambda: 2
toy = ToyConfig(num_train=30, num_val=1, num_test=1)
folder = generate.generate(data_config(sys.argv[1], num_tokens_per_img=1, toy=toy))
print(len(list(folder.glob("features/*/*.safetensors"))), __file__, __spec__)
"""


@pytest.mark.road
def test_script_without_a_guard_draws_in_several_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert re.fullmatch(r"drawing 32 recordings into .+\n", done.stderr)
    first, *_, last = done.stdout.splitlines()
    assert (first, last) == ("once", f"32 {script} None")
    assert done.stdout.count("once") == 1


def test_processes_that_draw_are_told_of_no_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool(ThreadPoolExecutor):
        def __init__(self, num: int, mp_context: object) -> None:
            super().__init__(num)

        def map(self, *args: Any, **options: Any) -> Any:
            told.append(get_preparation_data("child"))
            return super().map(*args, **options)

    told: list[dict[str, Any]] = []
    drawn: list[object] = []
    monkeypatch.setattr(module, "_draw_one", drawn.append)
    monkeypatch.setattr(module, "num_processors", lambda: 2)
    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None, raising=False)
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    assert "init_main_from_path" in get_preparation_data("child")
    generate(data_config(tmp_path, toy=ToyConfig(num_train=30, num_val=1, num_test=1)))
    assert len(drawn) == 32
    assert [name for name in told[0] if "init_main" in name] == []
    assert (main.__file__, main.__spec__) == ("script.py", None)


def content(folder: Path) -> dict[str, bytes]:
    """Every file; of features the values only, whose header safetensors writes in any order."""
    return {
        str(p.relative_to(folder)): b"".join(
            tensor.numpy().tobytes() for _, tensor in sorted(load_file(p).items())
        )
        if p.suffix == ".safetensors"
        else p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file()
    }


def count_drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    drawn: list[str] = []
    draw = module._draw_one

    def counted(job):
        drawn.append(job[0].video_uid)
        draw(job)

    monkeypatch.setattr(module, "_draw_one", counted)
    return drawn


def test_folder_holds_records_timelines_features_and_manifest(made: Path) -> None:
    config = data_config(made)
    folder = generated_folder(config)

    assert folder.parent == made
    assert set(content(folder)) == {
        "train.jsonl", "val.jsonl", "test.jsonl", "timelines.jsonl", "manifest.json",
        *(f"features/thumbnail4/{uid}.safetensors" for uid in read_timelines(folder)),
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rendered"] is True
    assert manifest["grids"] == ["cls", "2x2"]
    lines = (folder / "train.jsonl").read_text().splitlines()
    assert manifest["conversations"]["train"] == len(lines) == 6


def test_timelines_are_read_back(made: Path) -> None:
    config = data_config(made)
    timelines = read_timelines(generated_folder(config))

    assert timelines == {t.video_uid: t for ts in make_toy(config.toy).values() for t in ts}


def test_timelines_with_other_ends_of_lines_in_their_texts_are_read_back(
    made: Path, tmp_path: Path
) -> None:
    one, two, *_ = read_timelines(generated_folder(data_config(made))).values()
    one = replace(one, task="tea\u2028or\u2029cof\x85fee\r")
    text = f"{one.to_json()}\n{two.to_json()}\n"
    (tmp_path / "timelines.jsonl").write_bytes(text.encode())
    assert read_timelines(tmp_path) == {one.video_uid: one, two.video_uid: two}


def test_generating_again_makes_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = count_drawn(monkeypatch)
    folder = generated_folder(data_config(made))
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}

    assert generate(data_config(made)) == folder

    assert drawn == []
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_work_that_was_cut_short_goes_on(copy: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = generated_folder(copy)
    before = content(folder)
    lost = folder / "features" / "thumbnail4" / "toy-val-00001.safetensors"
    (folder / "manifest.json").unlink()
    (folder / "val.jsonl").unlink()
    lost.unlink()
    drawn = count_drawn(monkeypatch)

    generate(copy)

    assert drawn == ["toy-val-00001"]
    assert content(folder) == before


def test_every_setting_that_matters_has_a_folder_of_its_own(made: Path) -> None:
    config = data_config(made)
    others = [
        replace(config, seed=2),
        replace(config, encoder="thumbnail8"),
        replace(config, num_tokens_per_img=1),
        replace(config, toy=replace(config.toy, num_val=3)),
        replace(config, toy=replace(config.toy, seed=2)),
        replace(config, dialogue=replace(config.dialogue, fps=1.0)),
        replace(config, dialogue=replace(config.dialogue, knowledge=True)),
    ]
    folders = {generated_folder(c) for c in [config, *others]}

    assert len(folders) == 8
    same = replace(config, batch_size=1, max_seq_len=99, max_val=1, num_workers=3)
    assert generated_folder(same) == generated_folder(config)


def test_source_read_in_place_is_not_generated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="proassist is read in place, not generated"):
        generate(data_config(tmp_path, source="proassist", root=str(tmp_path)))
