"""Turns of DST rows that stand at other frames than their time says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proassist_lit.data.conversation import AssistantTurn, Conversation, DstTurn, FramesTurn
from proassist_lit.data.sources.dst_record import row_source

FAR_FRAMES = 2
"""Distance from which on it is no matter of rounding, or of a window about the time."""


def times_warning(path: Path, conversations: Iterable[Conversation]) -> str:
    """What is odd about the times in a file of rows, in one line; empty if nothing is.

    The extension's input style ``proassist`` names the frame at which the turn before ended; the
    one at which a turn happens is its ``end_frame`` then. Both styles look alike but for this.
    """
    num_timed, far = 0, []
    for conversation in conversations:
        if row_source(conversation.metadata) is None:
            continue
        watched = conversation.start_frame_idx
        for turn in conversation.turns:
            if isinstance(turn, FramesTurn):
                watched = turn.end
            if not isinstance(turn, AssistantTurn | DstTurn):
                continue
            is_update = isinstance(turn, DstTurn)
            time_s = turn.extra.get("time") if isinstance(turn, DstTurn) else turn.time_s
            if time_s is None:
                continue
            num_timed += 1
            frame = time_s * conversation.fps
            if abs(watched - 1 - frame) > FAR_FRAMES:
                what = "an update" if is_update else "words"
                far.append(
                    f"{conversation.source}: {what} at frame {watched - 1}, its time {time_s} s is "
                    f"frame {frame:.1f}"
                )
    if not far:
        return ""
    return (
        f"{path}: {len(far)} of {num_timed} turns with a time "
        f"{'is' if len(far) == 1 else 'are'} more than {FAR_FRAMES} frames from it, first at "
        f"{far[0]}. If the file is of the extension's input style 'proassist', 'start_frame' is "
        "where the turn before ended: set it to 'end_frame'."
    )
