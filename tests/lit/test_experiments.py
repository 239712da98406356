"""Every experiment of the repository trains and streams, made small."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from proassist_lit.cli import run_app
from proassist_lit.config import RunConfig
from proassist_lit.lit.run import train
from proassist_lit.model.config import LoraConfig, TrainMode
from proassist_lit.model.training_layers import GradientCheckpointing
from proassist_lit.streaming.room import room_to_write
from tests.data.captaincook4d_files import files, write
from tests.fakes import word_chat

CONF = Path(__file__).parents[2] / "conf"
SMALL = (
    "trainer.max_steps=2", "trainer.val_every_steps=2", "trainer.log_every_steps=1",
    "data.toy.num_train=2", "data.toy.num_val=1", "data.toy.num_test=1",
    "model.tiny.hidden_size=32", "model.tiny.num_layers=2", "model.tiny.num_heads=2",
    "stream.theta_speak=1.0", "stream.theta_dst=1.0", "evaluation.similarity=words",
    "evaluation.streams_on_validation=0", "logger.wandb=disabled",
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here


def run_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> dict[str, float]:
    run = tmp_path / "run"
    monkeypatch.setattr(
        sys, "argv",
        ["train.py", *SMALL, f"data.cache={tmp_path / 'data'}", f"hydra.run.dir={run}", *overrides],
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run_app(train, conf_dir=CONF)
    metrics: dict[str, float] = json.loads((run / "metrics.json").read_text())
    rows = [r.split(",") for r in (run / "metrics.csv").read_text().splitlines()]
    assert "1" in {row[rows[0].index("step")] for row in rows[1:]}  # two steps, from 0
    return metrics


EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
LARGE = [path for path in EXPERIMENTS if "# Hardware:" in path.read_text()]
"""They need weights, data or hours that no test has."""

SHAPES = {
    "meta-llama/Llama-3.1-8B-Instruct": (32, 8, 128),
    "meta-llama/Meta-Llama-3-8B-Instruct": (32, 8, 128),
    "meta-llama/Llama-3.2-3B-Instruct": (28, 8, 128),
}
"""Layers, heads of keys, their size."""


@pytest.mark.parametrize("path", LARGE, ids=lambda p: p.stem)
def test_large_experiments_compose_and_say_what_they_need(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[RunConfig] = []
    monkeypatch.setattr(
        sys, "argv",
        ["train.py", f"+experiment={path.stem}", "data.root=x", f"hydra.run.dir={tmp_path}"],
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run_app(lambda config, _: jobs.append(config), conf_dir=CONF)

    (config,) = jobs
    assert config.name == path.stem
    assert config.model.train is (
        TrainMode.FULL if path.stem.startswith("smolvlm") else TrainMode.LORA
    )
    if path.stem.startswith("proassist_8b"):
        assert config.data.num_tokens_per_img == int(path.stem.rpartition("i")[2])
        assert config.model.lora == LoraConfig(rank=128, alpha=256, dropout=0.05, lm_head=True)
        tokens = config.data.num_tokens_per_img
        batch = config.data.batch_size * config.trainer.accumulate * 8  # devices
        assert batch == {1: 256, 5: 384, 10: 512}[tokens]
        # trained on cuts, streamed on whole recordings, as ProAssist is
        files = f"*/prepared/dialog-klg-sum_train_L4096_I{tokens}.jsonl"
        assert config.data.train_files == files
        assert config.data.val_files == f"*/prepared/dialog-klg_val_L0_I{tokens}.jsonl"
        assert config.data.test_files == f"*/prepared/dialog-klg_test_L0_I{tokens}.jsonl"
        assert (config.trainer.optimizer.lr, config.objective.rho) == (2e-4, 0.1)
        assert (config.trainer.max_epochs, config.data.max_seq_len) == (4, 4096)
        assert config.stream.max_summary_tokens == config.splitting.max_summary_tokens == 512
        cut_at = config.stream.max_context - config.stream.reserve
        assert cut_at + config.stream.max_summary_tokens == config.data.max_seq_len
        assert room_to_write(word_chat("llama3"), config.stream, tokens) > 512
        step = config.data.batch_size * config.data.max_seq_len * config.trainer.accumulate
        assert step * config.trainer.save_every_steps < 7e6  # tokens, of a device; some ten minutes
    trainer, one_gpu = config.trainer, config.trainer.devices == "1"
    assert (trainer.gradient_checkpointing is GradientCheckpointing.FULL) is not one_gpu
    micro_tokens = 2048 if path.stem == "captaincook4d_smollm2" else 4096
    assert trainer.micro_tokens == (micro_tokens if one_gpu else None)
    header = path.read_text()
    if config.model.backbone.startswith("meta-llama/"):
        layers, heads, size = SHAPES[config.model.backbone]
        token = 2 * layers * heads * size * 2  # keys and values, bytes of bfloat16
        slots = int(config.stream.kv_gib * 2**30 / (token * config.stream.max_context))
        tried = config.evaluation.candidates
        rows = 2 * tried - 1 if config.model.dst else tried
        assert slots // rows >= 10  # recordings of val at once
        assert f"contexts {config.stream.kv_gib:.0f}" in header
    for word in (
        f"# Command:  python train.py +experiment={path.stem} ",
        "# Hardware: ",
        " hours",
        "# Memory: ",
    ):
        assert word in header


@pytest.mark.road
@pytest.mark.parametrize(
    "path", [path for path in EXPERIMENTS if path not in LARGE], ids=lambda p: p.stem
)
def test_experiment_runs_two_steps(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"+experiment={path.stem}"]
    if "captaincook4d" in path.read_text():
        overrides.append(f"data.root={write(tmp_path / 'annotations', files())}")

    metrics = run_small(tmp_path, monkeypatch, *overrides)

    assert "val/utterance_f1" in metrics


@pytest.mark.road
@pytest.mark.parametrize(
    "overrides",
    [
        ("objective.turns=single", "objective.rho=0.02", "data.max_train=1"),
        ("objective.kind=token_prob", "model.decision=opening_token", "objective.smoothing_s=1"),
        (
            "objective.kind=per_token",
            "compat=proassist",
            "stream.strategy=drop_middle",
            "stream.theta_speak=0.999",  # at 1 the next token decides
            "model.dst=false",
            "model.chat=llama3",
            "model.separator=EOS",
        ),
        ("compat=proassist", "model.chat=dst_ext"),
        ("data.max_seq_len=400", "splitting.method=summarize"),
    ],
    ids=["single", "opening_token", "compat", "dst_ext", "summarize"],
)
def test_options_run_two_steps(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_small(tmp_path, monkeypatch, *overrides)
