"""Answers all streams of a run with a model, and scores them beside those who do not look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.errors import ProAssistError
from proassist_lit.evaluation.progress import StreamProgress
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.metrics.similarity import Similarity
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.answers import AnswerStore
from proassist_lit.streaming.baselines import (
    borrowed_features,
    clock,
    clock_candidates,
    frequent_utterance,
    speak_when,
)
from proassist_lit.streaming.calibrate import choose_thresholds
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.evaluate import make_transcript, stream_conversations
from proassist_lit.streaming.shards import bring_together, share
from proassist_lit.streaming.teacher import teacher_force
from proassist_lit.types import Transcript

OnFrames = Callable[[int], None]


class Evaluator:
    """Answers recorded streams with a model.

    Args:
        chat: the formatter.
        data: conversations by split; train gives the baselines their words and rhythm.
        config: thresholds (None: chosen on val) and limits.
        similarity: embeds utterances; its name stands in the result.
        num_tokens_per_img: K.
        compat: streams are answered as ProAssist's released code does.
    """

    def __init__(
        self,
        chat: Chat,
        data: Mapping[str, ConversationSet],
        config: StreamConfig,
        similarity: Similarity,
        *,
        num_tokens_per_img: int,
        compat: bool = False,
    ) -> None:
        self._chat, self._data, self._config = chat, data, config
        self.similarity, self._num_tokens_per_img = similarity, num_tokens_per_img
        self._compat = compat

    def thresholds(self, model: AssistantModel) -> StreamConfig:
        """Stream settings with both thresholds set, from a teacher-forced pass over val."""
        config = self._config
        if config.theta_speak is not None and config.theta_dst is not None:
            return config
        passes = []
        for conversation in self._data["val"]:
            sequence = build_sequence(
                read_script(conversation),
                self._chat,
                num_tokens_per_img=self._num_tokens_per_img,
                max_seq_len=config.max_context,
            )
            features = self._data["val"].features(conversation)
            passes.append(teacher_force(model, sequence, features))
        speak, dst = choose_thresholds(passes)
        return replace(
            config,
            theta_speak=speak if config.theta_speak is None else config.theta_speak,
            theta_dst=dst if config.theta_dst is None else config.theta_dst,
        )

    def quick(self, model: AssistantModel, num_streams: int) -> dict[str, float]:
        """Metrics of the first streams of val, while training; without baselines."""
        with _evaluating(model):
            config = self.thresholds(model)
            data = self._data["val"]
            chosen = data.conversations[:num_streams]
            transcripts = self._stream(model, chosen, partial(_features, data), config)
        return self._scores(transcripts)

    def evaluate(
        self,
        model: AssistantModel,
        *,
        on_stream: Callable[[str, Transcript], None] | None = None,
        answers: Path | None = None,
    ) -> EvaluationResult:
        """Answer every stream of val and test; score them, and the baselines on test.

        Args:
            model: put into evaluation mode for the while.
            on_stream: called with the split and the transcript of every finished stream.
            answers: folder in which finished streams are kept until all are: after a stop, the
                same evaluation goes on with the others; None to keep none.
        """
        with _evaluating(model):
            config = self.thresholds(model)
            store = None
            if answers is not None:
                settings = (config, self._chat.format, self._num_tokens_per_img, self._compat)
                store = AnswerStore(answers, model, *settings)
            result = EvaluationResult(config=config)
            splits = [split for split in ("val", "test") if split in self._data]
            blind = [splits[-1]] * 2  # on other features, and on zeros
            total = sum(
                c.num_frames for s in splits + blind for c in share(self._data[s].conversations)
            )
            with StreamProgress(total) as progress:

                def finish(transcript: Transcript, split: str = "") -> None:
                    progress.stream()
                    if on_stream is not None and split:
                        on_stream(split, transcript)

                for split in splits:
                    progress.describe(split)
                    data = self._data[split]
                    result.transcripts[split] = self._stream(
                        model,
                        data.conversations,
                        partial(_features, data),
                        config,
                        on_frames=progress.frames,
                        on_stream=partial(finish, split=split),
                        store=store,
                    )
                progress.describe("blind")
                baselines = self._baselines(
                    model, config, splits[-1], progress.frames, finish, store
                )
        for split, transcripts in result.transcripts.items():
            self._score(result, split, transcripts)
            assert config.theta_speak is not None
            assert config.theta_dst is not None
            result.metrics[f"{split}/theta_speak"] = config.theta_speak
            result.metrics[f"{split}/theta_dst"] = config.theta_dst
        for name, transcripts in baselines.items():
            self._score(result, f"baseline/{name}/{splits[-1]}", transcripts)
        result.metrics["similarity"] = self.similarity.name
        if store is not None:
            store.clear()
        return result

    def _stream(
        self,
        model: AssistantModel,
        conversations: Sequence[Conversation],
        features: Callable[[int], Tensor],
        config: StreamConfig,
        *,
        on_frames: OnFrames | None = None,
        on_stream: Callable[[Transcript], None] | None = None,
        store: AnswerStore | None = None,
    ) -> list[Transcript]:
        """Answer ``conversations``, in their order, but for those that ``store`` has answers of.

        Where a run has several processes, each answers its share.
        """
        done: dict[int, Transcript] = {}
        keys: dict[int, str] = {}
        numbers = share(range(len(conversations)))
        for number in numbers if store is not None else ():
            assert store is not None
            conversation = conversations[number]
            keys[number] = store.key(conversation, features(number))
            frames = store.read(keys[number])
            if frames is None:
                continue
            done[number] = make_transcript(conversation, read_script(conversation), frames)
            if on_frames is not None:
                on_frames(len(frames))
            if on_stream is not None:
                on_stream(done[number])
        left = [number for number in numbers if number not in done]
        failed: ProAssistError | None = None
        try:
            for index, transcript in stream_conversations(
                model,
                self._chat,
                [conversations[number] for number in left],
                lambda index: features(left[index]),
                config,
                num_tokens_per_img=self._num_tokens_per_img,
                on_frames=on_frames,
                compat=self._compat,
            ):
                number = left[index]
                done[number] = transcript
                if store is not None:
                    store.write(keys[number], list(transcript.frames))
                if on_stream is not None:
                    on_stream(transcript)
        except ProAssistError as error:
            failed = error
        everyones = bring_together(done, failed)
        return [everyones[number] for number in range(len(conversations))]

    def _score(self, result: EvaluationResult, prefix: str, transcripts: list[Transcript]) -> None:
        scores = self._scores(transcripts)
        result.metrics |= {f"{prefix}/{name}": value for name, value in scores.items()}

    def _scores(self, transcripts: Sequence[Transcript]) -> dict[str, float]:
        """Metrics of all ``transcripts``; each process scores its share, and metrics add up."""
        return evaluate_transcripts(share(transcripts), self.similarity)

    def _baselines(
        self,
        model: AssistantModel,
        config: StreamConfig,
        split: str,
        on_frames: OnFrames,
        on_stream: Callable[[Transcript], None],
        store: AnswerStore | None,
    ) -> dict[str, list[Transcript]]:
        train = self._data["train"].conversations
        data = self._data[split]
        text = frequent_utterance(train)
        interval_s = self._clock_interval(train, text)
        out = {
            "always_silent": [speak_when(c, "", lambda _: False) for c in data],
            "always_speak": [speak_when(c, text, lambda _: True) for c in data],
            "clock": [clock(c, text, interval_s) for c in data],
        }

        def other(index: int) -> Tensor:
            return borrowed_features(data.conversations, index, data.features)

        def zeros(index: int) -> Tensor:
            return torch.zeros_like(other(index))

        for name, features in (("blind", other), ("blind_zeros", zeros)):
            out[name] = self._stream(
                model, data.conversations, features, config,
                on_frames=on_frames, on_stream=on_stream, store=store,
            )  # fmt: skip
        return out

    def _clock_interval(self, train: Sequence[Conversation], text: str) -> float:
        """The interval with the best utterance F1 on val."""

        def f1(interval_s: float) -> float:
            transcripts = [clock(c, text, interval_s) for c in self._data["val"]]
            return self._scores(transcripts).get("utterance_f1", 0.0)

        return max(clock_candidates(train), key=f1)


def _features(data: ConversationSet, number: int) -> Tensor:
    return data.features(data.conversations[number])


@contextmanager
def _evaluating(model: AssistantModel) -> Iterator[None]:
    """Evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
