"""Teacher-forced passes over a split: the reference dialogue is the context, one forward a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.evaluation.thresholds import Labelled
from proassist_lit.metrics.lm import TeacherForcedMetrics
from proassist_lit.metrics.text import TextPairMetrics
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.rules import OURS, SequenceRules
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import SpeakRule
from proassist_lit.streaming.decoder import make_decoder
from proassist_lit.streaming.forced_turns import forced_turns
from proassist_lit.streaming.policy import forced_values
from proassist_lit.streaming.shards import work_shared
from proassist_lit.streaming.teacher import TeacherForced, teacher_force


@dataclass(frozen=True)
class TeacherForcing:
    """How conversations are read in one forward.

    Attributes:
        chat: the formatter.
        max_seq_len: most tokens of a sequence.
        split: parts of a conversation that hold all its frames; they fit into ``max_seq_len``.
        rules: whose rules make the sequences.
        max_new_tokens: longest utterance that is written at every turn of the reference; 0 where
            none is.
        speak_rule: what is compared with the threshold of P(speak).
    """

    chat: Chat
    max_seq_len: int
    split: Callable[[Conversation], Sequence[Conversation]] = lambda conversation: [conversation]
    rules: SequenceRules = OURS
    max_new_tokens: int = 0
    speak_rule: SpeakRule = SpeakRule.THRESHOLD

    def decisions(
        self, model: AssistantModel, data: ConversationSet
    ) -> tuple[Labelled, Labelled | None]:
        """What thresholds are compared with at every frame of ``data``, beside the labels.

        Of the speak head it is what the rule makes of P(speak), of the dst head P(update); None
        without the latter.
        """
        everyones = work_shared(partial(self._decide, model, data), len(data))
        found = [forced for number in sorted(everyones) for forced in everyones[number]]
        speak = (
            torch.cat([self._values(f) for f in found]),
            torch.cat([f.speak_labels for f in found]),
        )
        with_dst = [(f.dst_probs, f.dst_labels) for f in found if f.dst_probs is not None]
        if not with_dst:
            return speak, None
        return speak, (
            torch.cat([probs for probs, _ in with_dst]),
            torch.cat([labels for _, labels in with_dst]),
        )

    def scores(
        self, model: AssistantModel, data: ConversationSet, theta_speak: float
    ) -> dict[str, float]:
        """The metrics of ``TeacherForcedMetrics`` over ``data``; each process takes its share.

        Where the model writes at every turn, those of ``TextPairMetrics``, too (ProAssist's
        offline evaluation).
        """
        metric, words = TeacherForcedMetrics(), TextPairMetrics("forced")
        metric.update((), 1.0)  # a process may have no share
        words.update(())
        decoder = make_decoder(model) if self.max_new_tokens else None

        def score(number: int) -> None:
            for part in self.split(data.conversations[number]):
                script, features = read_script(part, self.rules), data.features(part)
                turns = forced_turns(
                    model, self.chat, script, features,
                    theta_speak=theta_speak, max_seq_len=self.max_seq_len,
                    max_new_tokens=self.max_new_tokens, decoder=decoder, rule=self.speak_rule,
                )  # fmt: skip
                metric.update(turns, part.fps)
                words.update(turn.texts for turn in turns if turn.texts is not None)

        work_shared(score, len(data))
        values = metric.compute()
        if self.max_new_tokens:
            values |= words.compute()
        return {name: float(value) for name, value in values.items()}

    def _values(self, forced: TeacherForced) -> Tensor:
        """(F,) what the threshold of P(speak) is compared with."""
        if not self.speak_rule.looks_back:
            return forced.speak_probs
        replies = (forced.speak_labels == 1).tolist()
        return torch.tensor(forced_values(forced.speak_probs.tolist(), replies, self.speak_rule))

    def _decide(
        self, model: AssistantModel, data: ConversationSet, number: int
    ) -> list[TeacherForced]:
        out = []
        for part in self.split(data.conversations[number]):
            features = data.features(part)
            sequence = build_sequence(
                read_script(part, self.rules),
                self.chat,
                num_tokens_per_img=features.shape[1],
                max_seq_len=self.max_seq_len,
            )
            out.append(teacher_force(model, sequence, features))
        return out
