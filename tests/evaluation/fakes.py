"""An evaluator over nine random streams, without files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.forced import TeacherForcing
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.similarity import HashedWordSimilarity
from proassist_lit.streaming.config import StreamConfig
from tests.fakes import dialogue, random_features, word_chat

CONFIG = StreamConfig(theta_speak=0.6, theta_dst=0.6, max_new_tokens=5, max_dst_tokens=5)


class RandomSet(ConversationSet):
    """Without files."""

    def features(self, conversation: Conversation) -> Tensor:
        return random_features(10, seed=int(conversation.video_uid[-1]))


def make_evaluator(
    config: StreamConfig = CONFIG,
    settings: EvaluationConfig | None = None,
    *,
    datasets: tuple[str, ...] = ("toy",),
    matcher: Matcher | None = None,
) -> Evaluator:
    """Three streams a split; they belong to ``datasets`` in turn."""

    def record(split: str, number: int) -> Conversation:
        conversation = dialogue(video_uid=f"{split}{number}")
        return replace(conversation, dataset=datasets[number % len(datasets)])

    data = {
        split: RandomSet(
            split, tuple(record(split, first + i) for i in range(3)), Path(), DataConfig()
        )
        for first, split in ((0, "train"), (3, "val"), (6, "test"))
    }
    settings = settings or EvaluationConfig(candidates=1)
    return Evaluator(
        data,
        config,
        TeacherForcing(word_chat(), 4096, stream=config),
        matcher or Matcher(HashedWordSimilarity(), settings.match_windows()),
        settings,
        num_tokens_per_img=1,
    )
