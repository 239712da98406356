"""The conversations that both sides learn."""

from __future__ import annotations

import argparse
import random

from benchmarks.shapes import features, stream
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.types import Example


def examples(chat: Chat, options: argparse.Namespace) -> list[Example]:
    """Conversations of drawn lengths, the same in every process; short ones as often as long ones.

    As many are of 256 to 512 tokens as of 512 to 1024, say.
    """
    rng, out = random.Random(0), []
    per_frame = options.tokens + options.speak * (options.words + 2)
    ratio = options.longest / options.shortest
    for number in range(options.batch * options.steps):
        wanted = options.shortest * ratio ** rng.random()
        num_frames = max(int(wanted / per_frame), 2)
        spoken = [frame for frame in range(num_frames) if rng.random() < options.speak]
        made = ExampleSet(
            [stream(number, num_frames, spoken or [0], options.words)],
            lambda c, n=number: features(n, c.num_frames, options.tokens),
            chat, num_tokens_per_img=options.tokens, max_seq_len=options.longest, rho=1.0,
            turn_frames=None, seed=0,
        )  # fmt: skip
        out.append(made[0, 0])
    return out
