"""Gathers what the report of a run shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image

from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.metrics.decision_curves import DecisionCurves, decision_curves
from proassist_lit.metrics.matcher import Matcher
from proassist_lit.metrics.matching import UNSCORED
from proassist_lit.metrics.speaking import HEADS
from proassist_lit.report.curves import read_curves
from proassist_lit.report.run_report import RunReport, StreamView
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.types import Transcript

CURVES = ("train/", "val/loss", "val_stream/utterance_f1", "val_stream/dst_update_f1", "lr-")
"""What is drawn over the steps of training; the final metrics stand in the table."""

MAX_PICTURES = 120
"""Most pictures of a filmstrip."""


def gather_report(
    title: str,
    run: RunDirectory,
    result: EvaluationResult,
    data: Mapping[str, ConversationSet],
    matcher: Matcher,
    *,
    config_yaml: str,
    notes: Mapping[str, str],
    max_streams: int,
    earlier: RunDirectory | None = None,
) -> RunReport:
    """Put together the report of a finished evaluation.

    Args:
        title: name of the run.
        run: its directory, for the curves of training.
        result: what the evaluation found.
        data: conversations by split, for the pictures; streams that are not there have none.
        matcher: pairs the utterances, as it did for the metrics.
        config_yaml: the resolved configuration.
        notes: git commit, versions, duration, machine.
        max_streams: streams of each split that are shown.
        earlier: another run to compare with.
    """
    conversations = {split: {c.stream_id: c for c in data[split]} for split in data}
    views = [
        stream_view(
            split,
            conversations.get(split, {}).get(transcript.stream_id),
            transcript,
            data.get(split),
            result,
            matcher,
        )
        for split, transcripts in reversed(result.transcripts.items())
        for transcript in transcripts[:max_streams]
    ]
    return RunReport(
        title=title,
        config_yaml=config_yaml,
        metrics=result.metrics,
        curves={
            name: points
            for name, points in read_curves(run.metrics_csv).items()
            if name.startswith(CURVES)
        },
        streams=views,
        notes=notes,
        decisions=decisions_by_split(result.transcripts, result.config),
        sweep=result.sweep,
        compares_probs=result.config.compares_probs,
        has_words=result.config.words,
        earlier=None if earlier is None else earlier.read_metrics(),
        earlier_name="" if earlier is None else earlier.path.resolve().name,
    )


def decisions_by_split(
    transcripts: Mapping[str, Sequence[Transcript]], config: StreamConfig | None = None
) -> dict[str, dict[str, DecisionCurves]]:
    """Curves of both heads by split, exact at the thresholds of ``config``.

    Heads without labels of both kinds are left out.
    """
    used = {"speak": config.theta_speak_prob, "dst": config.theta_dst} if config else {}
    out: dict[str, dict[str, DecisionCurves]] = {}
    for split, streams in transcripts.items():
        found = {
            head: decision_curves(
                streams, head, exact_at=[theta] if (theta := used.get(head)) is not None else []
            )
            for head in HEADS
        }
        out[split] = {head: curves for head, curves in found.items() if curves is not None}
    return out


def stream_view(
    split: str,
    conversation: Conversation | None,
    transcript: Transcript,
    data: ConversationSet | None,
    result: EvaluationResult,
    matcher: Matcher,
) -> StreamView:
    """One stream with its matches and, where its conversation is at hand, its filmstrip."""
    match = matcher.match(transcript) if result.config.words else UNSCORED
    theta_dst = result.config.theta_dst
    assert theta_dst is not None
    indices = [frame.frame_idx for frame in transcript.frames]
    shown = indices[:: max(-(-len(indices) // MAX_PICTURES), 1)]
    pictures = None
    if data is not None and conversation is not None:
        pictures = data.frames(conversation, shown)
    return StreamView(
        split=split,
        transcript=transcript,
        theta_speak=result.config.theta_speak_prob,
        theta_dst=theta_dst,
        semantic_threshold=match.semantic_threshold,
        filmstrip=[] if pictures is None else _encoded(shown, pictures),
        rendered=conversation is not None and bool(conversation.metadata.get("rendered")),
        # The matching counts frames from 0 in the stream, the report from 0 in the video.
        matched=[
            (indices[pair.gen_frame], indices[pair.ref_frame], pair.score) for pair in match.pairs
        ],
        missed=[indices[frame] for frame in match.missed],
        redundant=[indices[frame] for frame in match.redundant],
    )


def _encoded(indices: Sequence[int], pictures: object) -> list[tuple[int, bytes]]:
    out = []
    for index, picture in zip(indices, pictures, strict=True):  # type: ignore[call-overload]
        buffer = io.BytesIO()
        # Noise makes PNG large; a reader needs the look of it, not its grain.
        Image.fromarray(picture).save(buffer, format="JPEG", quality=70)
        out.append((index, buffer.getvalue()))
    return out
