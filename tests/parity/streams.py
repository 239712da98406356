"""Streams that the reference's own code stepped through, stepped again by ours in its way."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.rules import PROASSIST
from proassist_lit.sequence.script import Script, read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.reference import ReferenceSession
from proassist_lit.streaming.reference_context import ReferenceConfig, ReferenceTrace
from proassist_lit.types import FrameOutput
from tests.parity.numbers import (
    build_model,
    conversation,
    llama_chat,
    numbers,
    our_weights,
    tensors,
)

FILE = numbers("streaming.json")
MODELS, VIDEOS, RUNS = (FILE.get(name, {}) for name in ("models", "videos", "runs"))
EVENTS = {"summarize": "summarize_and_drop"}
"""Our names of what is done to the context, where the reference has others."""


@cache
def load(name: str) -> tuple[AssistantModel, Chat]:
    entry = MODELS[name]
    sizes = entry["config"]
    weights: dict[str, Tensor] = {}
    for file, prefix in (
        (entry["base_file"], entry["base_prefix"]),
        ("streaming.safetensors", entry["overrides_prefix"]),
    ):
        weights |= {
            key.removeprefix(prefix): value
            for key, value in tensors(file).items()
            if key.startswith(prefix)
        }
    has_head = sizes["use_binary_decision_head"]
    config = ModelConfig(
        chat="llama3",
        dst=False,
        head=HeadType(sizes["binary_decision_head_type"]),
        decision=Decision.HEAD if has_head else Decision.SILENT_TOKEN,
    )
    chat = llama_chat(sizes["img_sep_token"])
    return build_model(sizes, our_weights(weights), config, chat).eval(), chat


def features(run: dict[str, Any]) -> Tensor:
    return tensors("streaming.safetensors")[VIDEOS[run["video"]]["features"]]


def script_of(run: dict[str, Any]) -> Script:
    return read_script(conversation(VIDEOS[run["video"]]["conversation"]), PROASSIST)


def settings(run: dict[str, Any]) -> ReferenceConfig:
    theirs = {name: ours for ours, name in EVENTS.items()}
    same = (
        "eval_max_seq_len", "reserved_seq_len", "last_keep_len", "not_talk_threshold",
        "use_gt_context", "max_length", "summary_max_length", "init_last_not_talk_prob",
    )  # fmt: skip
    strategy = theirs.get(run["strategy"], run["strategy"])
    return ReferenceConfig(strategy=strategy, **{name: run[name] for name in same})


def play(
    run: dict[str, Any], config: ReferenceConfig
) -> tuple[list[FrameOutput], list[ReferenceTrace]]:
    (model, chat), script, frames = load(run["model"]), script_of(run), features(run)
    session = ReferenceSession(
        model, chat, script, config, fps=2.0, num_tokens_per_img=frames.shape[1],
        start_frame_idx=VIDEOS[run["video"]]["start_frame_idx"], name=run["video"],
    )  # fmt: skip
    outputs, traces = [], []
    for i, moment in enumerate(script.moments):
        said = Said(moment.before, moment.spans)
        outputs.append(session.step(frames[i], heard(script, i), said=said))
        assert session.last is not None
        traces.append(session.last)
    return outputs, traces


def kind(run: dict[str, Any]) -> str:
    threshold = run["not_talk_threshold"]
    if isinstance(threshold, str):
        return "diff"
    return "argmax" if threshold == 0 else "threshold"
