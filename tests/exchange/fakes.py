"""Small backbones on disk, runs as training leaves them, exported, and a stream to compare by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from proassist_lit.build import build_model
from proassist_lit.commands.main import main
from proassist_lit.config import RunConfig
from proassist_lit.config_schema import write_config
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.backbone import build_tokenizer
from proassist_lit.model.checkpoint import PREFIX, saved_names
from proassist_lit.model.config import LoraConfig, ModelConfig, TinyConfig, TrainMode
from proassist_lit.model.lora import merged
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.model.weights_type import cast_weights
from proassist_lit.run_directory import RunDirectory
from proassist_lit.sequence.chat import FORMATS
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.evaluate import stream_conversation
from proassist_lit.types import Transcript
from tests.fakes import VISION_SIZE, WORDS, dialogue, random_features
from tests.model.tiny_lms import causal_lm

STREAM = StreamConfig(theta_speak=0.5, theta_dst=0.5, max_new_tokens=5, max_dst_tokens=5)
LORA = LoraConfig(rank=3, alpha=5.0, dropout=0.0)
TINY = TinyConfig(vocab_size=330, hidden_size=16, num_layers=2, num_heads=2, mlp_size=24)

Captured = pytest.CaptureFixture[str]


def base_folder(folder: Path, *, chat: str = "llama3", tied: bool = False) -> Path:
    """A random Llama with a tokenizer that knows the tokens of ``chat``, but no image token."""
    table = replace(FORMATS[chat], image="<|spare|>")
    tokenizer = train_tokenizer([WORDS] * 3, table, 330)
    rows = len(tokenizer)
    tokenizer.save_pretrained(folder)
    causal_lm(
        "Llama", vocab_size=rows, tie_word_embeddings=tied, max_position_embeddings=4096
    ).save_pretrained(folder)
    return folder


def settings(backbone: str | Path, train: TrainMode, chat: str = "llama3") -> ModelConfig:
    return ModelConfig(backbone=str(backbone), chat=chat, train=train, lora=LORA)


@torch.no_grad()
def shake(model: nn.Module, seed: int = 4) -> None:
    """Train, in the shortest way: everything that may change does."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            size = 1.0 if "head." in name else 0.15
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def make_run(
    folder: Path, config: ModelConfig, *, bf16_true: bool = False, **others: Any
) -> tuple[Path, AssistantModel]:
    """The directory of a run that is over, and its model; as with that ``trainer.precision``."""
    run = RunConfig(name="small", model=config, **others)
    write_config(run, folder / "config.yaml")
    tokenizer = build_tokenizer(config, lambda: [WORDS] * 3)
    tokenizer.save_pretrained(folder / "tokenizer")
    model = build_model(run, tokenizer, VISION_SIZE).eval()
    shake(model)
    if bf16_true:
        cast_weights(model, torch.bfloat16)
    names = saved_names(model)
    state = {f"{PREFIX}{n}": t.clone() for n, t in model.state_dict().items() if n in names}
    (folder / "checkpoints").mkdir()
    for name in ("last", "best"):
        torch.save({"state_dict": state}, folder / "checkpoints" / f"{name}.ckpt")
    RunDirectory(folder).write_metrics(
        {"val/theta_speak": 0.25, "val/theta_dst": 0.75, "test/utterance_f1": 0.5}
    )
    return folder, model


def exported(tmp_path: Path, train: TrainMode = TrainMode.FULL) -> Path:
    base = base_folder(tmp_path / "base")
    run, _ = make_run(tmp_path / "run", settings(base, train))
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def error(capsys: Captured) -> str:
    return capsys.readouterr().err.rpartition("error: ")[2]  # after bars of the tests' own


def stream(model: AssistantModel, config: StreamConfig = STREAM) -> Transcript:
    """What a model makes of a dialogue."""
    assert model.chat is not None
    with merged(model.lm):
        return stream_conversation(model, model.chat, dialogue(), random_features().float(), config)
