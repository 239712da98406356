"""A stream's dialogues line by line, as a judge reads them: ``[12.5s] User: text``."""

from __future__ import annotations

from collections.abc import Iterable

from proassist_lit.types import Transcript


def assistant_lines(transcript: Transcript) -> tuple[str, ...]:
    """What the user and the assistant said, in the order of time; summaries are left out."""
    both = zip(transcript.frames, transcript.references, strict=True)
    return _lines(transcript, ("" if ref.is_summary else frame.text for frame, ref in both))


def reference_lines(transcript: Transcript) -> tuple[str, ...]:
    """What the user said, and what the reference says to it."""
    return _lines(transcript, (reference.text for reference in transcript.references))


def _lines(transcript: Transcript, texts: Iterable[str]) -> tuple[str, ...]:
    out = []
    for frame, text in zip(transcript.frames, texts, strict=True):
        # What the user said arrived before the frame, the assistant speaks after it.
        for speaker, words in (("User", frame.user_text), ("Assistant", text)):
            one_line = " ".join(words.split())
            if one_line:
                out.append(f"[{frame.time_s:.1f}s] {speaker}: {one_line}")
    return tuple(out)
