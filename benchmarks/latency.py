"""One live stream: time of a frame and of the first word, at a given length of the context.

Ours is ``Session``: silent frames, and now and then a frame at which it speaks. The baseline is
what ProAssist does for a frame: one Hugging Face forward with ``DynamicCache``, all hidden states
and vocabulary logits included, filled with the same context, in the same process, on the same
weights. P(speak) of both is compared, so that both are known to do the same work.

The context is made long by a user who says much before the first frame: random digits, exactly as
many tokens as are missing, fed in one go. Then frames are watched in rounds: a few that are not
timed, those that are, one at which the assistant speaks; and back to the long context, so that no
round leaves it by much. The copying back, and the one slow frame at which the keys outgrow their
room (it doubles), are not timed. ``ratio`` is of the p50 of a frame at the longest context.

The encoder is timed apart: the weight-free thumbnail encoder, on one random picture on a CPU. Real
encoders take longer. Features are on the device before the clock starts.

    python -m benchmarks.latency --shape smollm2 --contexts 1024,4096
    python -m benchmarks.latency --shape 8b --dtype bfloat16 --tokens 10
    python -m benchmarks.latency --quick
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.shapes import SHAPES, build, features, machine, stream, synchronize
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.cache_argument import with_cache
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.cache import KVCache
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.decoder import make_decoder
from proassist_lit.streaming.session import Session
from proassist_lit.vision.encoders import GRIDS, build_encoder, grids_for

UNTIMED = 2
"""Frames at the beginning of a round that are not timed."""

ROUND = 10
"""Most frames that a round times: both sides take turns, so a slower machine slows both."""

GROWTH = 0.05
"""Most that the timed frames of a round add to the context, as a share of it."""

ENCODER, PICTURE = "thumbnail16", (480, 640, 3)


class NotingDecoder:
    """The decoder that a session would take; notes when it is called, and with what at first."""

    def __init__(self, model: AssistantModel) -> None:
        self._decode = make_decoder(model)
        self.calls: list[float] = []  # seconds
        self.first: Tensor | None = None  # (T, D) the prefix, the user's text and the first frame

    def __call__(self, inputs_embeds: Tensor, cache: KVCache) -> Tensor:
        """Extend ``cache`` by (T, D) embeddings; return the last hidden state, (D,)."""
        self.calls.append(perf_counter())
        if self.first is None:
            self.first = inputs_embeds
        return self._decode(inputs_embeds, cache)


def long_text(chat: Chat, num_tokens: int) -> str:
    """Random digits that the formatter writes as ``num_tokens`` tokens, as a user's turn."""
    digits = num_tokens - len(chat.turn_ids(Role.USER, "0")) + 1
    if digits < 1:
        raise SystemExit(
            f"latency: --contexts leaves {num_tokens} tokens beside the prompt and a frame, which "
            "is too short; choose a longer context, or fewer --tokens."
        )
    return "".join(map(str, np.random.default_rng(0).integers(10, size=digits)))


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in ms."""
    values = np.percentile(np.asarray(seconds) * 1000, (50, 95, 99)).round(3).tolist()
    return dict(zip(("p50", "p95", "p99"), values, strict=True))


def rounds(context: int, num_frames: int, num_tokens_per_img: int) -> Iterator[int]:
    """How many frames each round times, ``num_frames`` in all."""
    longest = max(1, min(ROUND, int(GROWTH * context / num_tokens_per_img)))
    while num_frames > 0:
        yield min(longest, num_frames)
        num_frames -= longest


def timed(device: torch.device, work: Callable[[], float]) -> tuple[float, float]:
    """What ``work`` gives, and the seconds that it took."""
    synchronize(device)
    start = perf_counter()
    result = work()
    synchronize(device)
    return result, perf_counter() - start


class Live:
    """A session with a long context, and what its rounds took.

    Whatever it sees, it is silent at so many frames and speaks at the next.

    Args:
        model: in evaluation mode.
        chat: the formatter.
        context: tokens before the first frame of a round.
        frame: (K, E) features of the frame that ends the context.
        num_silent: silent frames of a whole round.
        max_new_tokens: tokens of an utterance.
    """

    def __init__(
        self, model: AssistantModel, chat: Chat, *, context: int, frame: Tensor, num_silent: int,
        max_new_tokens: int,
    ) -> None:  # fmt: skip
        k = len(frame)
        reserve = max_new_tokens + k + 16
        self._decoder = NotingDecoder(model)
        self._session = Session(
            model, chat, read_script(stream(0, 1)),
            StreamConfig(
                theta_speak=0.0, theta_dst=1.0, strategy=Strategy.NONE,
                stride=num_silent + 2,  # the frame that ends the context, and the one that speaks
                max_new_tokens=max_new_tokens, max_dst_tokens=1, reserve=reserve,
                max_context=context + (num_silent + 2) * k + 2 * reserve,
            ),
            fps=2.0, num_tokens_per_img=k, decoder=self._decoder,
        )  # fmt: skip
        self._num_silent, self._device = num_silent, model.device
        self._session.step(frame, long_text(chat, context - k - self._session.context_len))
        assert self._session.context_len == context, "the text has as many tokens as asked for"
        self._full = self._session.snapshot()
        self.probs: list[float] = []
        self.frame_s: list[float] = []
        self.first_token_s: list[float] = []
        self.token_s: list[float] = []

    @property
    def filled_with(self) -> Tensor:
        """(T, D) embeddings of the context."""
        assert self._decoder.first is not None
        return self._decoder.first

    def round(self, frames: Tensor) -> None:
        """Watch (F, K, E) frames from the long context on, all but the first ones timed."""
        self._session.restore(self._full)
        for i, frame in enumerate(frames):
            prob, seconds = timed(self._device, partial(self._watch, frame))
            self.probs.append(prob)
            if i >= UNTIMED:
                self.frame_s.append(seconds)
        for _ in range(self._num_silent - len(frames)):
            self._watch(frames[-1])  # the last round may be shorter
        self._speak(frames[0])

    def _watch(self, frame: Tensor) -> float:
        output = self._session.step(frame)
        assert not output.speak, "its turn to speak comes after the round"
        return output.speak_prob

    def _speak(self, frame: Tensor) -> None:
        self._decoder.calls.clear()
        synchronize(self._device)
        start = perf_counter()
        output = self._session.step(frame)
        assert output.speak
        # Calls: the frame, the opening, every written token. A token is read, which waits for the
        # device, before the next call.
        _, _, *written = self._decoder.calls
        if written:
            self.first_token_s.append(written[0] - start)
        self.token_s += [b - a for a, b in pairwise(written)]


class Baseline:
    """One Hugging Face forward per frame, and what it took.

    Args:
        model: in evaluation mode.
        context: (T, D) embeddings of the context.
    """

    def __init__(self, model: AssistantModel, context: Tensor) -> None:
        self._model, self._cache = model, DynamicCache()
        model.lm(
            inputs_embeds=context[None], use_cache=True, logits_to_keep=1,
            **with_cache(model.lm, self._cache),
        )  # fmt: skip
        self._context = len(context)
        self.probs: list[float] = []
        self.frame_s: list[float] = []

    def round(self, frames: Tensor) -> None:
        """Watch (F, K, E) frames from the long context on, all but the first ones timed."""
        added = self._cache.get_seq_length() - self._context
        if added:
            self._cache.crop(-added)
        for i, frame in enumerate(frames):
            prob, seconds = timed(self._model.device, partial(self._watch, frame))
            self.probs.append(prob)
            if i >= UNTIMED:
                self.frame_s.append(seconds)

    def _watch(self, frame: Tensor) -> float:
        out = self._model.lm(
            inputs_embeds=self._model.project(frame)[None], use_cache=True,
            output_hidden_states=True, **with_cache(self._model.lm, self._cache),
        )  # fmt: skip
        return float(self._model.speak_head(out.hidden_states[-1][0, -1]).float().sigmoid())


def measure_encoder(num_tokens_per_img: int, num_frames: int) -> dict[str, object]:
    """Time of one picture through the thumbnail encoder."""
    encoder = build_encoder(ENCODER)
    picture = np.random.default_rng(0).integers(0, 256, PICTURE, dtype=np.uint8)
    grids, seconds = grids_for(num_tokens_per_img), []
    for _ in range(num_frames):
        start = perf_counter()
        encoder.encode(picture[None], grids)
        seconds.append(perf_counter() - start)
    return {"name": ENCODER, "picture": list(PICTURE), "ms": percentiles(seconds)}


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, object]:
    """Both sides at every context; what their frames took and whether they agree."""
    device = torch.device(options.device)
    model, chat = build(options.shape, device=device, dtype=getattr(torch, options.dtype))
    k = options.tokens
    ours: dict[str, object] = {}
    theirs: dict[str, object] = {}
    difference, ratio = 0.0, 0.0
    for context in sorted(options.contexts):
        plan = list(rounds(context, options.frames, k))
        inputs = features(context, UNTIMED + plan[0], k).to(device)
        live = Live(
            model, chat, context=context, frame=inputs[-1], num_silent=len(inputs),
            max_new_tokens=options.words,
        )  # fmt: skip
        baseline = Baseline(model, live.filled_with)
        for num_timed in plan:
            live.round(inputs[: UNTIMED + num_timed])
            baseline.round(inputs[: UNTIMED + num_timed])
        if not live.token_s:
            raise SystemExit(
                f"latency: at {context} tokens of context no utterance has two tokens; raise "
                "--words or --frames."
            )
        pairs = zip(live.probs, baseline.probs, strict=True)
        difference = max(difference, *(abs(a - b) for a, b in pairs))
        mine, other = percentiles(live.frame_s), percentiles(baseline.frame_s)
        ratio = other["p50"] / mine["p50"]
        ours[str(context)] = {
            "frame_ms": mine,
            "first_token_ms": percentiles(live.first_token_s),
            "token_ms": percentiles(live.token_s),
            "frames": len(live.frame_s),
            "utterances": len(live.first_token_s),
        }
        theirs[str(context)] = {"frame_ms": other, "frames": len(baseline.frame_s)}
    return {
        "benchmark": "latency",
        "ratio": round(ratio, 2),
        "baseline": theirs,
        "ours": ours,
        "encoder": measure_encoder(k, options.frames),
        "prob_difference": difference,
        "settings": {
            name: getattr(options, name)
            for name in ("shape", "dtype", "contexts", "tokens", "frames", "words")
        },
        "machine": machine(device),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--contexts", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--tokens", type=int, choices=sorted(GRIDS), default=1, help="K, per frame")
    parser.add_argument("--frames", type=int, help="silent frames timed per context")
    parser.add_argument("--words", type=int, default=20, help="tokens of an utterance, at least 2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quick", action="store_true", help="a small shape, under a minute")
    options = parser.parse_args(arguments)
    options.shape = options.shape or ("tiny" if options.quick else "smollm2")
    options.contexts = options.contexts or ([256, 1024] if options.quick else [1024, 4096, 8192])
    options.frames = options.frames or (30 if options.quick else 100)
    return options


def main() -> None:
    """Measure as asked and print one JSON object."""
    print(json.dumps(measure(parse())))


if __name__ == "__main__":
    main()
