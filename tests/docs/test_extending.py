"""The pages that tell how to add something are followed word for word, in a copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, apply_diff, blocks, commands

EXTENDING = ROOT / "docs" / "extending"
PAGES = ["experiment", "loss", "decision", "metric", "data-set"]
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "outputs", "site", "wandb", "toy-*", "captaincook4d-*"
)

SMALL = [
    "data.toy.num_train=2", "data.toy.num_val=1", "data.toy.num_test=1", "trainer.max_steps=2",
    "trainer.val_every_steps=2", "model.tiny.hidden_size=32", "model.tiny.num_layers=2",
    "model.tiny.num_heads=2", "model.tiny.mlp_size=32", "stream.max_new_tokens=4",
    "stream.max_dst_tokens=4", "evaluation.similarity=words", "evaluation.candidates=1",
    "evaluation.streams_on_validation=0", "logger.wandb=disabled", "trainer.accelerator=cpu",
]  # fmt: skip
"""What a run of a page gets beside its own words, to take seconds."""


def follow(block: Block, folder: Path, page: str) -> None:
    """Write the file of a block, or change it."""
    path = folder / block.title
    if block.language == "diff":
        path.write_text(apply_diff(path.read_text("utf-8"), block.text, f"{page}: {block.title}"))
    else:
        assert not path.exists(), f"{page}: {block.title} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


def in_place(words: list[str]) -> list[str]:
    """The command as it is run in the copy: nothing installed is taken, sizes are small."""
    main = "import sys; from proassist_lit.commands.main import main; sys.exit(main())"
    programs = {
        "python": [sys.executable],
        "ruff": [sys.executable, "-m", "ruff"],
        "proassist-lit": [sys.executable, "-c", main],
    }
    small = SMALL if words[1] == "train.py" else []
    serial = ["-p", "no:xdist"] if words[1:3] == ["-m", "pytest"] else []
    return [*programs[words[0]], *words[1:], *small, *serial]


def changed_files(page: str) -> dict[str, str]:
    """Files of the repository that a page changes, as it leaves them."""
    changed: dict[str, str] = {}
    for block in blocks(EXTENDING / f"{page}.md"):
        if block.language == "diff":
            text = changed.get(block.title) or (ROOT / block.title).read_text("utf-8")
            changed[block.title] = apply_diff(text, block.text, f"{page}: {block.title}")
    return changed


@pytest.mark.parametrize("page", PAGES)
def test_changes_of_the_page_fit_the_sources(page: str) -> None:
    for name, text in changed_files(page).items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    new = [b.title for b in blocks(EXTENDING / f"{page}.md") if b.title and b.language != "diff"]
    assert new
    assert not [name for name in new if (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES[1:])
def test_overview_names_the_changed_files(page: str) -> None:
    text = (EXTENDING / "index.md").read_text("utf-8")
    [row] = [line for line in text.splitlines() if f"]({page}.md)" in line]
    for name in changed_files(page):
        assert f"`{name.removeprefix('proassist_lit/')}`" in row


@pytest.mark.road
@pytest.mark.parametrize("page", PAGES)
def test_page_leads_to_what_it_promises(page: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    environment = os.environ | {
        "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"
    }  # fmt: skip
    commands_run = 0
    for block in blocks(EXTENDING / f"{page}.md"):
        if block.title:
            follow(block, folder, page)
        elif block.language == "bash":
            for words in commands(block.text):
                done = subprocess.run(
                    in_place(words), cwd=folder, env=environment, check=False, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240,
                )  # fmt: skip
                assert done.returncode == 0, f"{page}: {' '.join(words)}\n{done.stdout[-3000:]}"
                commands_run += 1
    assert commands_run
    for check in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=folder, check=True)
    PROMISES[page](folder)


def metrics_of_latest(folder: Path) -> dict[str, object]:
    return json.loads((folder / "outputs/latest/metrics.json").read_text("utf-8"))


def experiment_is_compared(folder: Path) -> None:
    table = (folder / "runs.html").read_text("utf-8")
    assert "rare_frames" in table
    assert "per_token" in table
    [config] = (folder / "outputs/rare_frames").glob("*/config.yaml")
    assert "rho: 0.1" in config.read_text("utf-8")
    file = folder / "conf/experiment/rare_frames.yaml"
    file.write_text(file.read_text("utf-8").replace("rho:", "rhoo:"))
    done = subprocess.run(
        [sys.executable, "train.py", "+experiment=rare_frames"], cwd=folder, check=False,
        env=os.environ | {"PYTHONPATH": str(folder)}, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    promised = (EXTENDING / "experiment.md").read_text("utf-8")
    [line] = [line.strip() for line in promised.splitlines() if line.startswith("    error:")]
    said = done.stderr.strip().replace(f"{folder}/", "")
    assert (done.returncode, said) == (2, line)


def labels_are_soft(folder: Path) -> None:
    assert "soft_labels: 0.1" in (folder / "outputs/latest/config.yaml").read_text("utf-8")


def rule_is_streamed_by(folder: Path) -> None:
    assert "rule: smoothed" in (folder / "outputs/latest/config.yaml").read_text("utf-8")
    theta = metrics_of_latest(folder)["val/theta_speak"]
    assert isinstance(theta, float)


def metric_is_in_the_results(folder: Path) -> None:
    [run] = (folder / "outputs/latest/evaluations").iterdir()
    evaluated = json.loads((run / "metrics.json").read_text("utf-8"))
    found = metrics_of_latest(folder) | evaluated
    assert [name for name in found if name.endswith("utterance_repeated_rate")]


def garden_is_trained_on(folder: Path) -> None:
    [stream] = (folder / "outputs/latest/streams").glob("*.json")
    assert "g3" in stream.name
    assert metrics_of_latest(folder)


PROMISES = {
    "experiment": experiment_is_compared,
    "loss": labels_are_soft,
    "decision": rule_is_streamed_by,
    "metric": metric_is_in_the_results,
    "data-set": garden_is_trained_on,
}
