"""What pairs the utterances of streams with those of their references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from proassist_lit.metrics.match_windows import MatchWindow, match_window
from proassist_lit.metrics.matching import MatchConfig, UtteranceMatch, match_utterances
from proassist_lit.metrics.similarity import Similarity
from proassist_lit.types import Transcript


@dataclass(frozen=True)
class Matcher:
    """Says which utterance of the assistant answers which reference, stream by stream.

    Attributes:
        similarity: embeds the texts; None: every pair in time says the same.
        windows: match windows by data set that go before the built-in ones.
        config: costs and thresholds.
    """

    similarity: Similarity | None
    windows: Mapping[str, MatchWindow] = field(default_factory=dict)
    config: MatchConfig = field(default_factory=MatchConfig)

    @property
    def similarity_name(self) -> str:
        """What belongs beside the numbers."""
        return "none" if self.similarity is None else self.similarity.name

    def match(self, transcript: Transcript) -> UtteranceMatch:
        """Match the utterances of one stream; frames are counted from 0 in the transcript."""
        match = match_utterances(
            generated_texts(transcript),
            reference_texts(transcript),
            window_frames=match_window(transcript.dataset, self.windows).frames(transcript.fps),
            similarity=self.similarity,
            config=self.config,
        )
        known = [frame for frame in match.redundant if transcript.references[frame].supervised]
        return replace(match, redundant=tuple(known))

    def match_all(self, transcripts: Sequence[Transcript]) -> list[UtteranceMatch]:
        """Match the utterances of many streams, each with the window of its data set."""
        if self.similarity is not None:
            # One call for all texts: a similarity that remembers embeds them in full batches.
            self.similarity(
                [
                    text
                    for transcript in transcripts
                    for text in (*generated_texts(transcript), *reference_texts(transcript))
                    if text
                ]
            )
        return [self.match(transcript) for transcript in transcripts]


def generated_texts(transcript: Transcript) -> list[str]:
    """(F,) what the assistant said at each frame.

    Heard is what was decided *and* has words: a decision to speak followed by nothing but white
    space is a silent frame here (the frame metrics count the decision). So is one at which a
    recorded request for a summary is answered, as it is in the reference.
    """
    return [
        frame.text.strip() if frame.speak and not reference.is_summary else ""
        for frame, reference in zip(transcript.frames, transcript.references, strict=True)
    ]


def reference_texts(transcript: Transcript) -> list[str]:
    """(F,) what the reference says at each frame, empty where it is silent."""
    return [reference.text.strip() for reference in transcript.references]
