"""A run directory as training leaves one, and films of its recordings; nothing is trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from proassist_lit.build import build_core
from proassist_lit.config import (
    DataConfig,
    EvaluationConfig,
    LoggerConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    StreamConfig,
)
from proassist_lit.config_schema import write_config
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import TinyConfig
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.streaming.evaluate import stream_conversation
from tests.vision.clips import make_clip

UTTERANCES = ("Now wash it.", "Well <b>done</b> & on --> to the next", "Wait.")
UPDATES = ("S1->start", "S1->complete;S2->start", "S2->complete;S3->start", "S9->start")


@dataclass(frozen=True)
class TrainedRun:
    """A run, and a recording of its data.

    Attributes:
        folder: of the run.
        config: of the run, thresholds included.
        data: the recordings of test.
        conversation: one of them.
    """

    folder: Path
    config: RunConfig
    data: ConversationSet
    conversation: Conversation

    def pictures(self) -> NDArray[np.uint8]:
        """(F, 64, 64, 3), the frames that its features were made of."""
        drawn = self.data.frames(self.conversation, list(range(self.conversation.end_frame_idx)))
        assert drawn is not None
        return drawn

    def film(self, path: Path) -> Path:
        """The recording as a lossless video of one picture a frame."""
        rate = Fraction(self.conversation.fps)
        pictures = list(self.pictures())
        return make_clip(
            path, range(len(pictures)), time_base=1 / rate, pictures=pictures,
            size=(64, 64), codec="libx264rgb", pix_fmt="rgb24", options={"crf": "0"},
        )  # fmt: skip


def small_config(folder: Path) -> RunConfig:
    return RunConfig(
        name="small",
        data=DataConfig(
            cache=str(folder / "data"),
            toy=ToyConfig(num_train=1, num_val=1, num_test=1),
            dialogue=DialogueConfig(knowledge=True),
            encoder="thumbnail4",
        ),
        model=ModelConfig(
            tiny=TinyConfig(
                hidden_size=32, num_layers=2, num_heads=2, mlp_size=32, vocab_size=400, init_std=0.4
            )
        ),
        objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
        stream=StreamConfig(max_new_tokens=40, max_dst_tokens=24),
        evaluation=EvaluationConfig(similarity="words"),
        logger=LoggerConfig(),
    )


def make_run(folder: Path) -> TrainedRun:
    """A run whose model decides by what it sees, and speaks at some frames."""
    config = small_config(folder)
    core = build_core(config)
    model = core.model.eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith("lm."):
                parameter.normal_(std=0.5, generator=generator)
    data = core.data["test"]
    conversation = data.conversations[0]
    silent = replace(config.stream, theta_speak=1.0, theta_dst=1.0)
    frames = stream_conversation(
        model, core.chat, conversation, data.features(conversation), silent
    ).frames
    thresholds = {
        "test/theta_speak": float(np.quantile([f.speak_prob for f in frames], 0.93)),
        "test/theta_dst": float(np.quantile([f.dst_prob or 0.0 for f in frames], 0.93)),
    }
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    write_config(config, run / "config.yaml")
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, run / "checkpoints/last.ckpt")
    core.chat.tokenizer.save_pretrained(run / "tokenizer")
    (run / "metrics.json").write_text(json.dumps(thresholds))
    stream = replace(
        config.stream,
        theta_speak=thresholds["test/theta_speak"],
        theta_dst=thresholds["test/theta_dst"],
    )
    return TrainedRun(run, replace(config, stream=stream), data, conversation)


def script_words(patch: pytest.MonkeyPatch) -> None:
    """From now on every model of this process writes given words; its decisions are its own."""

    def ids(model: AssistantModel, spans: Sequence[str]) -> Iterator[int]:
        assert model.chat is not None
        for span in itertools.cycle(spans):
            yield from [*model.chat.encode(span), model.chat.end_of_turn_id]

    writers: dict[tuple[int, bool], Iterator[int]] = {}
    own = AssistantModel.lm_logits

    def lm_logits(self: AssistantModel, hidden: Tensor, *, dst: bool = False) -> Tensor:
        writer = writers.setdefault((id(self), dst), ids(self, UPDATES if dst else UTTERANCES))
        logits = torch.zeros_like(own(self, hidden, dst=dst))
        logits[..., next(writer)] = 1.0
        return logits

    patch.setattr(AssistantModel, "lm_logits", lm_logits)
