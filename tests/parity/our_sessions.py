"""Our own sessions on the reference's videos, and all that they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import prefix_ids, text_ids
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import Said, heard
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.decoder import make_decoder
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput
from tests.parity.numbers import conversation, tensors
from tests.parity.streams import MODELS, VIDEOS, load


class Noting:
    """A decoder that notes what it is fed, and the cache."""

    def __init__(self, model: AssistantModel) -> None:
        self._decode = make_decoder(model)
        self.fed: list[Tensor] = []
        self.cache: KVCache | None = None

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        self.fed.append(inputs_embeds)
        self.cache = cache
        return self._decode(inputs_embeds, cache)


LIMITS = StreamConfig(
    theta_speak=0.0, theta_dst=0.5, max_new_tokens=20, max_dst_tokens=1, max_summary_tokens=20,
    strategy=Strategy.NONE, max_context=8192, reserve=120, window_tokens=10,
)  # fmt: skip
"""Our session says something at every frame."""


class Ours:
    """Our own session on one of the videos, and all that it did."""

    def __init__(self, video: str, config: StreamConfig = LIMITS) -> None:
        entry = VIDEOS[video]
        self.model, self.chat = load(entry["model"])
        self.script = read_script(conversation(entry["conversation"]))
        self.images = tensors("streaming.safetensors")[entry["features"]]
        self.decoder = Noting(self.model)
        self.session = Session(
            self.model, self.chat, self.script, config, fps=2.0,
            num_tokens_per_img=self.images.shape[1], decoder=self.decoder,
        )  # fmt: skip
        self.outputs: list[FrameOutput] = []
        self.fed: list[list[Tensor]] = []  # by frame

    def step(self) -> FrameOutput:
        t = len(self.outputs)
        before = len(self.decoder.fed)
        moment = self.script.moments[t]
        said = Said(moment.before, moment.spans)
        self.outputs.append(self.session.step(self.images[t], heard(self.script, t), said=said))
        self.fed.append(self.decoder.fed[before:])
        return self.outputs[-1]

    def play(self, num_frames: int | None = None) -> Ours:
        for _ in self.script.moments[:num_frames]:
            self.step()
        return self

    def embed(self, ids: Sequence[int]) -> Tensor:
        return self.model.embed_tokens(torch.tensor(ids)).detach()


def tight(video: str, strategy: Strategy) -> StreamConfig:
    """A context that every stream fills, silent as it is: 50 tokens beside its opening."""
    script, chat = Ours(video).script, Ours(video).chat
    opening = len(prefix_ids(chat, script, {})) + len(text_ids(chat, heard(script, 0)))
    most = opening + 50 + LIMITS.reserve
    return replace(LIMITS, theta_speak=1.0, strategy=strategy, max_context=most)


def briefest() -> list[str]:
    """A video of a model without and one of a model with a separator."""
    found = {}
    for name in sorted(VIDEOS, key=lambda name: -VIDEOS[name]["num_frames"]):
        found[MODELS[VIDEOS[name]["model"]]["config"]["img_sep_token"]] = name
    return sorted(found.values())


def begins(fed: Tensor, ids: Sequence[int], ours: Ours) -> bool:
    return torch.equal(fed[: len(ids)], ours.embed(ids))


def holds_first(ours: Ours, ids: Sequence[int]) -> bool:
    """Whether the context begins with ``ids``, wherever it was fed."""
    assert ours.decoder.cache is not None
    fresh = KVCache(ours.model.lm.config.num_hidden_layers)
    make_decoder(ours.model)(ours.embed(ids), fresh)
    held, want = (cache.layers[1].keys[:, :, : len(ids)] for cache in (ours.decoder.cache, fresh))
    return torch.allclose(held, want, atol=1e-4)
