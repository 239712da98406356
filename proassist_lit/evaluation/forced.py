"""Teacher-forced passes over a split: the reference dialogue is the context, one forward a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.decoder import make_decoder
from proassist_lit.streaming.forced_turns import forced_turns
from proassist_lit.streaming.policy import DecisionPolicy, forced_values
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
        stream: when streams decide, and by which rule; what computes the words.
    """

    chat: Chat
    max_seq_len: int
    split: Callable[[Conversation], Sequence[Conversation]] = lambda conversation: [conversation]
    rules: SequenceRules = OURS
    max_new_tokens: int = 0
    stream: StreamConfig = field(default_factory=StreamConfig)

    def decisions(
        self, model: AssistantModel, data: ConversationSet
    ) -> tuple[Labelled, Labelled | None]:
        """What thresholds are compared with at every frame of ``data``, beside the labels.

        Of the speak head it is what the rule makes of P(speak), of the dst head P(update); of
        both ``NEVER`` where a stream decides nothing. None without the latter.
        """
        everyones = work_shared(partial(self._decide, model, data), [c.num_frames for c in data])
        found = [forced for number in sorted(everyones) for forced in everyones[number]]
        speak = (
            torch.cat([f.speak_probs for f in found]),
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
        decoder = make_decoder(model, self.stream.kernels) if self.max_new_tokens else None

        def score(number: int) -> None:
            for part in self.split(data.conversations[number]):
                script, features = read_script(part, self.rules), data.features(part)
                turns = forced_turns(
                    model, self.chat, script, features,
                    theta_speak=theta_speak, max_seq_len=self.max_seq_len,
                    max_new_tokens=self.max_new_tokens, decoder=decoder,
                    policy=DecisionPolicy.to_speak(self.stream), rise=self.stream.rise,
                )  # fmt: skip
                metric.update(turns, part.fps)
                words.update(turn.texts for turn in turns if turn.texts is not None)

        work_shared(score, [c.num_frames for c in data])
        values = metric.compute()
        if self.max_new_tokens:
            values |= words.compute()
        return {name: float(value) for name, value in values.items()}

    def _compared(self, forced: TeacherForced, spans: Sequence[bool]) -> TeacherForced:
        """The same with what thresholds are compared with in place of probabilities."""

        def values(probs: Tensor, labels: Tensor, policy: DecisionPolicy) -> Tensor:
            if policy == DecisionPolicy():
                return probs
            return torch.tensor(
                forced_values(probs.tolist(), (labels == 1).tolist(), spans, policy)
            )

        to_speak = DecisionPolicy.to_speak(self.stream)
        speak = values(forced.speak_probs, forced.speak_labels, to_speak)
        dst = forced.dst_probs
        if dst is not None:
            dst = values(dst, forced.dst_labels, DecisionPolicy.to_update(self.stream))
        return replace(forced, speak_probs=speak, dst_probs=dst)

    def _decide(
        self, model: AssistantModel, data: ConversationSet, number: int
    ) -> list[TeacherForced]:
        out = []
        for part in self.split(data.conversations[number]):
            features = data.features(part)
            script = read_script(part, self.rules)
            sequence = build_sequence(
                script,
                self.chat,
                num_tokens_per_img=features.shape[1],
                max_seq_len=self.max_seq_len,
            )
            forced = teacher_force(model, sequence, features)
            heard = script.moments[: len(forced.speak_labels)]
            out.append(self._compared(forced, [bool(moment.spans) for moment in heard]))
        return out
