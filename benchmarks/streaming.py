"""Recorded streams: the engine against one Hugging Face forward per frame and per token.

The baseline is what ProAssist does: ``DynamicCache``, one forward for every frame and one for every
token, vocabulary logits included. Both answer the same streams with the same weights in the same
process; frames per second are compared, and so are the answers.

    python -m benchmarks.streaming --shape smollm2
    python -m benchmarks.streaming --shape smollm2 --speak 0
    python -m benchmarks.streaming --quick
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.shapes import (
    add_arguments,
    build,
    features,
    machine,
    recordings,
    stream,
    stream_config,
    synchronize,
)
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.cache_argument import with_cache
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.stream import Stream
from proassist_lit.types import FrameOutput

WARM_UP = {"cpu": (2, 1000), "cuda": (64, 40)}
"""Streams and frames of each; on a GPU, so that passes of all sizes are captured."""


def baseline(
    model: AssistantModel, chat: Chat, config: StreamConfig, number: int, frames: Tensor
) -> list[FrameOutput]:
    """Answer one stream as the reference does."""
    cache = DynamicCache()
    states = Stream(
        chat, read_script(stream(number, len(frames))), config, fps=2.0,
        num_tokens_per_img=frames.shape[1], has_dst=False,
    )  # fmt: skip

    def forward(embeds: Tensor) -> tuple[Tensor, Tensor]:
        out = model.lm(
            inputs_embeds=embeds[None], use_cache=True, output_hidden_states=True,
            **with_cache(model.lm, cache),
        )  # fmt: skip
        return out.hidden_states[-1][0, -1], out.logits[0, -1]

    answers = []
    for frame in frames:
        ids = states.begin()
        image = model.project(frame.to(model.device))
        hidden, _ = forward(torch.cat([model.embed_ids(ids), image]) if ids else image)
        states.decide(float(model.speak_head(hidden).float().sigmoid()), None)
        while (fed := states.feed()) is not None:
            _, logits = forward(model.embed_ids(fed))
            states.take(int(logits.argmax()))
        answers.append(states.end())
    return answers


@torch.inference_mode()
def measure(options: argparse.Namespace) -> dict[str, object]:
    """Both sides on the same streams; what they took and whether they agree."""
    device = torch.device(options.device)
    model, chat = build(options.shape, device=device, dtype=getattr(torch, options.dtype))
    k, num_frames = options.tokens, options.frames
    config = stream_config(options, int(3 * num_frames * options.speak + 40))
    inputs = [features(i, num_frames, k, options.speak) for i in range(options.streams)]

    engine = Engine(model, chat, config, num_tokens_per_img=k, num_slots=options.slots)

    def run_engine(inputs: list[Tensor]) -> tuple[list[list[FrameOutput]], float]:
        streams = [stream(i, len(frames)) for i, frames in enumerate(inputs)]
        start = time.perf_counter()
        answered = sorted(engine.run(recordings(streams, inputs)), key=lambda a: a.index)
        synchronize(device)
        for one in answered:
            if one.error is not None:
                raise one.error
        return [list(one.frames) for one in answered], time.perf_counter() - start

    few, short = WARM_UP[device.type]
    run_engine([frames[:short] for frames in inputs[:few]])
    part = inputs[0][: min(20, num_frames)]
    baseline(model, chat, config, 0, part)
    synchronize(device)
    # The baseline answers streams that speak about as much as all do on average: a frame spoken at
    # costs it many forwards. Some before and some after: the pace of a shared machine changes.
    marked = [int((frames[:, -1, 0] > 0).sum()) for frames in inputs]
    average = sum(marked) / len(marked)
    typical = sorted(range(len(marked)), key=lambda i: abs(marked[i] - average))
    typical = typical[: options.baseline_streams]
    half = len(typical) // 2
    theirs, baseline_seconds, seconds = [], 0.0, 0.0
    for numbers in (typical[:half], typical[half:]):
        start = time.perf_counter()
        theirs += [baseline(model, chat, config, number, inputs[number]) for number in numbers]
        synchronize(device)
        baseline_seconds += time.perf_counter() - start
        if not seconds:
            ours, seconds = run_engine(inputs)
    pairs = [
        (a, b)
        for number, other in zip(typical, theirs, strict=True)
        for a, b in zip(ours[number], other, strict=True)
    ]
    frames = [frame for one in ours for frame in one]
    fast = len(frames) / seconds
    slow = len(pairs) / baseline_seconds
    return {
        "benchmark": "streaming",
        "ratio": round(fast / slow, 2),
        "baseline": {
            "frames_per_s": round(slow, 2),
            "streams": len(theirs),
            "spoken_share": round(sum(b.speak for _, b in pairs) / len(pairs), 4),
        },
        "ours": {
            "frames_per_s": round(fast, 2),
            "streams": len(ours),
            "seconds": round(seconds, 2),
        },
        "equal_decisions": sum(a.speak == b.speak for a, b in pairs) / len(pairs),
        "equal_answers": sum((a.speak, a.text) == (b.speak, b.text) for a, b in pairs) / len(pairs),
        "spoken_share": round(sum(frame.speak for frame in frames) / len(frames), 4),
        "settings": {
            name: getattr(options, name)
            for name in ("shape", "dtype", "frames", "speak", "words", "tokens", "slots", "kernels")
        },
        "machine": machine(device),
    }


def main() -> None:
    """Measure as asked and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add_arguments(parser)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--baseline-streams", type=int, default=2, help="how many it answers")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--speak", type=float, default=0.06, help="share of frames spoken at")
    parser.add_argument("--slots", type=int, default=None, help="streams at a time")
    options = parser.parse_args()
    if options.quick:
        options.shape, options.streams, options.frames = "tiny", 16, 100
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
