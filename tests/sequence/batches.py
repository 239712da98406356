"""Examples to learn from, and the order in which batches bring them."""

from __future__ import annotations

from proassist_lit.data.conversation import FramesTurn
from proassist_lit.sequence.batching import EpochBatches
from proassist_lit.sequence.examples import ExampleSet
from tests.fakes import DIALOGUE, dialogue, random_features, word_chat

LENGTHS = [(i * 37) % 101 for i in range(70)]


def order(seed: int = 0, epoch: int = 0, **kwargs) -> list[list[tuple[int, int]]]:
    batches = EpochBatches(LENGTHS, 4, seed=seed, **kwargs)
    batches.set_epoch(epoch)
    return list(batches)


def order_of(batches: EpochBatches) -> list[list[tuple[int, int]]]:
    return [sorted(batch) for batch in batches]


def example_set(k: int = 1, *, max_seq_len: int = 4096, rho: float = 0.5, **kwargs) -> ExampleSet:
    short = dialogue((*DIALOGUE[:4], FramesTurn(start=11, end=14)), video_uid="short")
    features = {
        c.video_uid: random_features(c.num_frames, k, seed=len(c.video_uid))
        for c in (dialogue(), short)
    }
    return ExampleSet(
        [dialogue(), short],
        lambda c: features[c.video_uid][: c.num_frames],  # a record may be read in part
        word_chat(),
        num_tokens_per_img=k,
        max_seq_len=max_seq_len,
        rho=rho,
        turn_frames=None,
        seed=3,
        **kwargs,
    )
