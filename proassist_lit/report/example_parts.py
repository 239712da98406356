"""What a token sequence is made of, read back from its tokens: turns of text, and frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from proassist_lit.sequence.builder import TokenSequence
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.types import IGNORE_INDEX


class Kind(StrEnum):
    """What a piece of text is."""

    PROMPT = "prompt"
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    DST = "dst"
    TEXT = "text"
    """A turn whose chat format does not say whose it is."""


class Loss(StrEnum):
    """Which language-model loss a piece of text bears."""

    NONE = "none"
    RESPONSE = "response"
    DST = "dst"


class Mark(StrEnum):
    """What a decision is trained towards at a frame, as the sign that shows it."""

    POS = "+"
    NEG = "−"
    SKIPPED = "·"
    """Has a label, and is not trained on in this epoch."""
    NEITHER = "○"


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """Tokens of one turn that bear the same loss."""

    loss: Loss
    text: str
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A turn of text; ``position`` is its first token."""

    position: int
    kind: Kind
    pieces: tuple[TextPiece, ...]


@dataclass(frozen=True, kw_only=True)
class FrameCell:
    """One frame.

    Attributes:
        frame_idx: absolute in the video.
        time_s: seconds from the start of the video.
        position: its decision token.
        speak: the speak decision.
        dst: the update decision.
    """

    frame_idx: int
    time_s: float
    position: int
    speak: Mark
    dst: Mark


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames with no text between them; ``position`` is the first token of the first."""

    position: int
    cells: tuple[FrameCell, ...]

    def runs(self) -> tuple[tuple[FrameCell, ...], ...]:
        """The frames, silent neighbours together; a frame to act at stands alone."""
        return tuple(tuple(run) for _, run in groupby(self.cells, _run_key))


def _run_key(cell: FrameCell) -> tuple[int, bool, bool]:
    """The same for frames of one run."""
    acts = Mark.POS in (cell.speak, cell.dst)
    neither = (cell.speak is Mark.NEITHER, cell.dst is Mark.NEITHER)
    return (cell.frame_idx if acts else -1, *neither)


def read_parts(
    sequence: TokenSequence, cells: Sequence[FrameCell], chat: Chat
) -> Iterator[Turn | Frames]:
    """Turns and frames in the order of the tokens.

    Args:
        sequence: the tokens and their labels.
        cells: its frames, in order; a separator between two frames belongs to the later one.
        chat: the formatter that wrote the sequence.
    """
    ids = sequence.input_ids.tolist()
    losses = _losses(sequence)
    is_image = sequence.image_mask.tolist()
    end = 0  # of what was given already
    frames: list[FrameCell] = []
    frames_start = 0
    for cell in cells:
        image = cell.position
        while image > 0 and is_image[image - 1] and image > end:
            image -= 1
        between = ids[end:image]
        if not frames or (between and between != chat.separator_ids):
            if frames:
                yield Frames(position=frames_start, cells=tuple(frames))
            yield from _turns(ids, losses, end, image, chat)
            frames, frames_start = [], image
        frames.append(cell)
        end = cell.position + 1
    yield Frames(position=frames_start, cells=tuple(frames))
    yield from _turns(ids, losses, end, len(ids), chat)


def _losses(sequence: TokenSequence) -> list[Loss]:
    return [
        Loss.RESPONSE if r != IGNORE_INDEX else Loss.DST if d != IGNORE_INDEX else Loss.NONE
        for r, d in zip(sequence.labels.tolist(), sequence.dst_labels.tolist(), strict=True)
    ]


def _turns(ids: list[int], losses: list[Loss], start: int, end: int, chat: Chat) -> Iterator[Turn]:
    """Turns of text in ``ids[start:end]``, which holds no image token."""
    while start < end:
        stop = _turn_end(ids, losses, start, end, chat)
        pieces, at = [], start
        for loss, run in groupby(losses[start:stop]):
            num_tokens = len(list(run))
            text = chat.tokenizer.decode(
                ids[at : at + num_tokens],
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )
            pieces.append(TextPiece(loss=loss, text=str(text), num_tokens=num_tokens))
            at += num_tokens
        kind = _kind(ids, losses, start, stop, chat)
        yield Turn(position=start, kind=kind, pieces=tuple(pieces))
        start = stop


def _turn_end(ids: list[int], losses: list[Loss], start: int, end: int, chat: Chat) -> int:
    """One past the last token of the turn that begins at ``start``."""
    for i in range(start, end):
        if ids[i] == chat.end_of_turn_id:
            after = chat.after_turn_ids
            return i + 1 + (len(after) if ids[i + 1 : i + 1 + len(after)] == after else 0)
        # Roles written without closing end where a learnt turn opens.
        if i > start and losses[i] is Loss.NONE and _learnt_role(ids, losses, i, chat):
            return i
    return end


def _learnt_role(ids: list[int], losses: list[Loss], start: int, chat: Chat) -> Kind | None:
    """Kind of the learnt turn whose opening, not learnt itself, stands at ``start``."""
    for role, loss, kind in (
        (Role.DST, Loss.DST, Kind.DST),
        (Role.ASSISTANT, Loss.RESPONSE, Kind.ASSISTANT),
    ):
        opening = chat.opening_ids(role)
        after = start + len(opening)
        if opening and ids[start:after] == opening and losses[after : after + 1] == [loss]:
            return kind
    return None


def _kind(ids: list[int], losses: list[Loss], start: int, stop: int, chat: Chat) -> Kind:
    found = set(losses[start:stop])
    if Loss.RESPONSE in found:
        return Kind.ASSISTANT
    if Loss.DST in found:
        return Kind.DST
    at = start
    if start == 0 and ids[: len(chat.bos_ids)] == chat.bos_ids:
        at = len(chat.bos_ids)
    roles = [
        role
        for role in (Role.USER, Role.SYSTEM)
        if (opening := chat.opening_ids(role)) and ids[at : at + len(opening)] == opening
    ]
    # The prefix opens with BOS and the system turn, whichever role a format writes it as.
    if start == 0 and (Role.SYSTEM in roles or not roles):
        return Kind.PROMPT
    return Kind(roles[0].value) if roles else Kind.TEXT
