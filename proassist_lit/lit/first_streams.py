"""The same few streams of val, answered again and again while training goes on."""

from __future__ import annotations

from proassist_lit.build import Core
from proassist_lit.config import RunConfig
from proassist_lit.errors import ProAssistError
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.metrics.summary import evaluate_transcripts
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.evaluate import stream_conversations
from proassist_lit.streaming.shards import bring_together, share
from proassist_lit.types import Transcript


class FirstStreams:
    """Answers the first streams of val by name, those that pictures are made of among them.

    Args:
        config: of the run; ``evaluation.streams_on_validation`` streams are answered.
        core: data, formatter and evaluator.
    """

    def __init__(self, config: RunConfig, core: Core) -> None:
        self._core, self._config = core, config
        by_name = sorted(core.data["val"], key=lambda conversation: conversation.id)
        self._chosen = by_name[: config.evaluation.streams_on_validation]

    def answer(self, model: AssistantModel) -> EvaluationResult:
        """Answer them with ``model`` as it is now; metrics are under ``val_stream/``.

        Where a run has several processes, each answers its share.
        """
        was_training = model.training
        model.eval()
        try:
            config = self._core.evaluator.thresholds(model)
            transcripts = self._stream(model, config)
        finally:
            model.train(was_training)
        scores = evaluate_transcripts(share(transcripts), self._core.evaluator.similarity)
        return EvaluationResult(
            config=config,
            metrics={f"val_stream/{name}": value for name, value in scores.items()},
            transcripts={"val": transcripts},
        )

    def _stream(self, model: AssistantModel, config: StreamConfig) -> list[Transcript]:
        mine = share(self._chosen)
        numbers = share(range(len(self._chosen)))
        data = self._core.data["val"]
        done: dict[int, Transcript] = {}
        failed: ProAssistError | None = None
        try:
            for index, transcript in stream_conversations(
                model,
                self._core.chat,
                mine,
                lambda index: data.features(mine[index]),
                config,
                num_tokens_per_img=self._config.data.num_tokens_per_img,
                compat=self._config.streams_as_reference,
            ):
                done[numbers[index]] = transcript
        except ProAssistError as error:
            failed = error
        everyones = bring_together(done, failed)
        return [everyones[number] for number in range(len(self._chosen))]
