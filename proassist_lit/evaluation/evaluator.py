"""Answers all streams of a run with a model, and scores them beside those who do not look."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from proassist_lit.data.dataset import ConversationSet
from proassist_lit.evaluation.baselines import BLIND, blind, unlooking
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.evaluation.forced import TeacherForcing
from proassist_lit.evaluation.progress import OnFinished, StreamProgress, Teller, saying
from proassist_lit.evaluation.result import EvaluationResult, SweepPoint
from proassist_lit.evaluation.streamer import Outcome, Streamer, complete, failures, own_streams
from proassist_lit.evaluation.thresholds import Candidates, worth
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.meteor import Meteor
from proassist_lit.metrics.summary import evaluate_by_dataset, evaluate_transcripts
from proassist_lit.model.as_streamed import as_streamed
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.shards import rank, share
from proassist_lit.types import Transcript


class Evaluator:
    """Answers recorded streams with a model.

    Args:
        data: conversations by split; train gives the baselines their words and rhythm.
        config: thresholds (None: chosen on val) and limits of streams.
        forcing: reads conversations with the reference as context; holds the formatter.
        matcher: pairs utterances; the name of its similarity stands in the result.
        settings: what is tried and measured.
        num_tokens_per_img: K.
        compat: streams are answered as ProAssist's released code does.
    """

    def __init__(
        self,
        data: Mapping[str, ConversationSet],
        config: StreamConfig,
        forcing: TeacherForcing,
        matcher: Matcher,
        settings: EvaluationConfig,
        *,
        num_tokens_per_img: int,
        compat: bool = False,
    ) -> None:
        self._data, self._config, self._forcing = data, config, forcing
        self.matcher, self._settings = matcher, settings
        self._num_tokens_per_img, self._compat = num_tokens_per_img, compat
        self._meteor = Meteor() if settings.meteor else None
        self._evaluated: Streamer | None = None

    def quick(self, model: AssistantModel, num_streams: int) -> EvaluationResult:
        """Answer the first streams of val by name, while training; without baselines.

        Metrics are under ``val_stream/``. The streams are the same each time, but for those that
        a model which is not trained yet talks full: they are left out, with a warning.
        """
        with _evaluating(model):
            (thresholds,) = self._candidates(model, 1).rows()
            data = self._data["val"]
            chosen = sorted(data.conversations, key=lambda conversation: conversation.id)
            chosen = chosen[:num_streams]
            (outcomes,) = self._streamer(model).answer(
                chosen, lambda number: data.features(chosen[number]), [thresholds]
            )
        transcripts = [outcome for outcome in outcomes if isinstance(outcome, Transcript)]
        if failed := failures(outcomes):
            _warn(
                f"{len(failed)} of {len(outcomes)} streams are left out of this validation, since "
                f"they fill their context: {failed[0]}"
            )
        scores = self._scores(transcripts) if transcripts else {}
        return EvaluationResult(
            config=replace(self._config, theta_speak=thresholds.speak, theta_dst=thresholds.dst),
            metrics={f"val_stream/{k}": v for k, v in scores.items()},
            transcripts={"val": transcripts},
        )

    def evaluate(
        self,
        model: AssistantModel,
        *,
        on_stream: OnFinished = lambda _split, _transcript: None,
        answers: Path | None = None,
    ) -> EvaluationResult:
        """Answer every stream of val and test; score them, and the baselines on the last of them.

        Thresholds that are not given are chosen on val: by a teacher-forced pass which ones to
        try, by streaming freely with them which one to take. Those with which a stream of val
        fills its context are not taken. A baseline of which a stream does has no metrics.

        Args:
            model: put into evaluation mode for the while.
            on_stream: called with the transcript of every finished stream that is in the result.
            answers: folder in which finished streams are kept until ``clear_answers``: after a
                stop, the same evaluation goes on with the others; None to keep none.

        Raises:
            ProAssistError: a stream failed. One that fills its context does so with the thresholds
                that were chosen, or with all of them.
        """
        with _evaluating(model):
            streamer = self._evaluated = self._streamer(model, answers)
            # Where every pair takes a pass of its own, only those that were asked for have one; and
            # frame decisions alone are known before anything is streamed.
            in_one_pass = streamer.in_one_pass and self._config.words
            num = self._settings.candidates if in_one_pass else 1
            with saying("Choosing thresholds on val, with the reference as context"):
                candidates = self._candidates(model, num, sweep=True)
            rows = candidates.rows()
            splits = [split for split in ("val", "test") if split in self._data]
            with StreamProgress(self._num_frames(splits, len(rows))) as progress:
                streamer.on_frames = progress.frames
                told = Teller(progress, on_stream)
                result = self._stream_splits(streamer, candidates, rows, splits, told)
                chosen = Thresholds.of(result.config)
                progress.describe("blind")
                data = self._data[splits[-1]]
                blindly = blind(streamer, data, chosen, told.count)
            with saying("Deciding with the reference as context"):
                for split in splits:
                    forced = self._forcing.scores(model, self._data[split], chosen.speak)
                    result.metrics |= {f"{split}/{name}": value for name, value in forced.items()}
        with saying("Scoring the baselines"):
            self._score_baselines(result, splits[-1], blindly)
        result.metrics["similarity"] = self.matcher.similarity_name
        result.metrics["threshold_choice"] = (
            "streamed on val" if candidates.streaming_decides else "given, or frames of val"
        )
        return result

    def clear_answers(self) -> None:
        """Forget the answers that the last evaluation kept: its results are written.

        Where a run has several processes, one does it for all.
        """
        if self._evaluated is not None:
            self._evaluated.clear()

    def _streamer(self, model: AssistantModel, answers: Path | None = None) -> Streamer:
        return Streamer(
            model, self._forcing.chat, self._config,
            num_tokens_per_img=self._num_tokens_per_img, compat=self._compat, answers=answers,
        )  # fmt: skip

    def _candidates(self, model: AssistantModel, num: int, *, sweep: bool = False) -> Candidates:
        """Thresholds to try; a pass over val is made only where one is not given."""
        config, settings = self._config, self._settings
        speak = dst = None
        if config.theta_speak is None or config.theta_dst is None:
            speak, dst = self._forcing.decisions(model, self._data["val"])
        return Candidates.find(
            config, speak, dst, num,
            also_speak=settings.sweep_speak if sweep else (),
            also_dst=settings.sweep_dst if sweep and model.dst_head is not None else (),
        )  # fmt: skip

    def _stream_splits(
        self,
        streamer: Streamer,
        candidates: Candidates,
        rows: Sequence[Thresholds],
        splits: Sequence[str],
        told: Teller,
    ) -> EvaluationResult:
        """Stream val with all rows, choose one, stream the other splits with it."""
        config = replace(self._config, theta_speak=rows[0].speak, theta_dst=rows[0].dst)
        result = EvaluationResult(config=config)
        chosen = rows[0]
        for split in splits:
            told.progress.describe(split)
            data = self._data[split]
            answer = partial(streamer.answer, data.conversations, partial(_features, data))
            if split == "val" and len(rows) > 1:
                chosen, transcripts, result.sweep[split] = self._stream_rows(
                    streamer, candidates, rows, data, told
                )
                for transcript in share(transcripts):
                    told.on_stream(split, transcript)
            else:
                (outcomes,) = answer([chosen], on_stream=told.of(split))
                transcripts = complete(outcomes)
            result.transcripts[split] = transcripts
            self._score(result, split, transcripts)
            result.metrics[f"{split}/theta_speak"] = chosen.speak
            result.metrics[f"{split}/theta_dst"] = chosen.dst
        result.config = replace(config, theta_speak=chosen.speak, theta_dst=chosen.dst)
        return result

    def _stream_rows(
        self,
        streamer: Streamer,
        candidates: Candidates,
        rows: Sequence[Thresholds],
        data: ConversationSet,
        told: Teller,
    ) -> tuple[Thresholds, list[Transcript], list[SweepPoint]]:
        """Stream ``data`` with all rows: the one to take, its streams, and what all led to."""
        answer = partial(
            streamer.answer, data.conversations, partial(_features, data), on_stream=told.count
        )
        answered = dict(zip(rows, answer(rows), strict=True))
        full = [row for row in rows if failures(answered[row])]
        points = [
            SweepPoint(
                theta_speak=row.speak,
                theta_dst=row.dst,
                metrics=self._scores(complete(answered[row])),
            )
            for row in rows
            if row not in full
        ]
        chosen = candidates.choose(points)
        if chosen not in answered:
            (answered[chosen],) = answer([chosen])
            told.progress.add(_own_frames(data))
            if failures(answered[chosen]):  # each by itself led to its end
                full.append(chosen)
                chosen = replace(chosen, dst=rows[0].dst)
        transcripts = complete(answered[chosen])
        if full:
            _warn(
                f"{len(full)} of {len(answered)} pairs of thresholds are not taken, since with "
                f"them a stream of val fills its context: {failures(answered[full[0]])[0]}"
            )
        return chosen, transcripts, points

    def _num_frames(self, splits: Sequence[str], num_rows: int) -> int:
        """``_own_frames`` of all passes, as far as is known at the start."""
        size = {s: _own_frames(self._data[s]) for s in splits}
        times = {s: num_rows if s == "val" else 1 for s in splits}
        times[splits[-1]] += len(BLIND)
        return sum(size[s] * times[s] for s in splits)

    def _score_baselines(
        self, result: EvaluationResult, split: str, blindly: Mapping[str, list[Outcome]]
    ) -> None:
        for name, transcripts in self._unlooking(split).items():
            self._score(result, f"baseline/{name}/{split}", transcripts)
        for name, outcomes in blindly.items():
            if failed := failures(outcomes):
                _warn(
                    f"baseline {name} has no metrics, since a stream of it fills its context: "
                    f"{failed[0]}"
                )
            else:
                self._score(result, f"baseline/{name}/{split}", complete(outcomes))

    def _unlooking(self, split: str) -> dict[str, list[Transcript]]:
        return unlooking(
            self._data[split],
            self._data["train"].conversations,
            self._data["val"].conversations,
            lambda transcripts: worth(self._scores(transcripts), "speak"),
        )

    def _score(self, result: EvaluationResult, prefix: str, transcripts: list[Transcript]) -> None:
        scores = evaluate_by_dataset(
            share(transcripts),
            self.matcher,
            names=sorted({t.dataset for t in transcripts}),
            meteor=self._meteor,
            has_words=self._config.words,
        )
        result.metrics |= {f"{prefix}/{name}": value for name, value in scores.items()}

    def _scores(self, transcripts: Sequence[Transcript]) -> dict[str, float]:
        """Metrics of all ``transcripts``; each process scores its share, and metrics add up."""
        return evaluate_transcripts(share(transcripts), self.matcher, has_words=self._config.words)


def _own_frames(data: ConversationSet) -> int:
    """Frames that this process answers."""
    return sum(data.conversations[number].num_frames for number in own_streams(data.conversations))


def _features(data: ConversationSet, number: int) -> Tensor:
    return data.features(data.conversations[number])


def _warn(message: str) -> None:
    """Once for all processes."""
    if rank() == 0:
        warnings.warn(message, stacklevel=3)


@contextmanager
def _evaluating(model: AssistantModel) -> Iterator[None]:
    """Evaluation mode for a while, on plain weights of one type."""
    was_training = model.training
    model.eval()
    try:
        with as_streamed(model):
            yield
    finally:
        model.train(was_training)
