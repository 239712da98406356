"""One training example, read back from its tokens: what the model sees, which loss is where.

Nothing is worked out anew: text is decoded from the sequence, losses are its labels, decisions the
masks of ``sequence.sampling``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import TokenSequence, build_sequence
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import read_script
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


@dataclass(frozen=True, kw_only=True)
class ExampleView:
    """One example, ready to be shown.

    Attributes:
        name: the record.
        source: where it was read.
        fps: frames per second.
        num_tokens_per_img: K.
        num_tokens: T.
        num_prefix_tokens: tokens before the first image token.
        num_record_frames: frames of the record; more than are shown if the sequence was cut.
        has_steps: whether the record tracks a state; else there is no update decision.
        response_tokens: tokens of assistant spans with a loss.
        dst_tokens: tokens of dst spans with a loss.
        parts: turns and frames in the order of the tokens.
    """

    name: str
    source: str
    fps: float
    num_tokens_per_img: int
    num_tokens: int
    num_prefix_tokens: int
    num_record_frames: int
    has_steps: bool
    response_tokens: int
    dst_tokens: int
    parts: tuple[Turn | Frames, ...]

    @property
    def cells(self) -> tuple[FrameCell, ...]:
        """All frames."""
        return tuple(c for part in self.parts if isinstance(part, Frames) for c in part.cells)

    def count(self, mark: Mark, *, dst: bool = False) -> int:
        """How many frames bear ``mark`` for the speak decision, or the update decision."""
        return sum((cell.dst if dst else cell.speak) is mark for cell in self.cells)

    def tokens_over_time(self) -> list[tuple[float, int]]:
        """Seconds from the start of the video, and tokens up to the frame's decision."""
        return [(cell.time_s, cell.position + 1) for cell in self.cells]


def view_example(
    conversation: Conversation,
    chat: Chat,
    *,
    num_tokens_per_img: int,
    max_seq_len: int,
    rho: float,
    turn_frames: int | None,
    seed: int,
    epoch: int,
) -> ExampleView:
    """Build the example as training does, and read it back.

    Args:
        conversation: the record.
        chat: the formatter.
        num_tokens_per_img: K.
        max_seq_len: most tokens.
        rho: share of the silent decisions that is trained on.
        turn_frames: None for a decision at every frame, else silent frames of a turn.
        seed: seed of the run.
        epoch: number of the epoch.

    Raises:
        RecordError: not even the first frame fits.
    """
    try:
        sequence = build_sequence(
            read_script(conversation), chat,
            num_tokens_per_img=num_tokens_per_img, max_seq_len=max_seq_len,
        )  # fmt: skip
    except ValueError as error:
        raise RecordError(f"{conversation.source}: {error}") from error
    decisions = sample_decisions(
        sequence,
        rho=rho,
        turn_frames=turn_frames,
        seed=seed,
        epoch=epoch,
        record_id=conversation.id,
    )
    speak = _marks(sequence, sequence.speak_labels, decisions.pos_frame_mask,
                   decisions.neg_frame_mask)  # fmt: skip
    dst = _marks(sequence, sequence.dst_update_labels, decisions.dst_pos_frame_mask,
                 decisions.dst_neg_frame_mask)  # fmt: skip
    cells = [
        FrameCell(frame_idx=i, time_s=i / conversation.fps, position=p, speak=s, dst=d)
        for i, p, s, d in zip(
            sequence.frame_indices.tolist(),
            sequence.decision_positions.tolist(),
            speak,
            dst,
            strict=True,
        )
    ]
    return ExampleView(
        name=conversation.id,
        source=conversation.source,
        fps=conversation.fps,
        num_tokens_per_img=num_tokens_per_img,
        num_tokens=len(sequence.input_ids),
        num_prefix_tokens=int(sequence.image_mask.int().argmax()),
        num_record_frames=conversation.num_frames,
        has_steps=bool(conversation.steps),
        response_tokens=int((sequence.labels != IGNORE_INDEX).sum()),
        dst_tokens=int((sequence.dst_labels != IGNORE_INDEX).sum()),
        parts=tuple(_parts(sequence, cells, chat)),
    )


def _marks(sequence: TokenSequence, labels: Tensor, pos: Tensor, neg: Tensor) -> list[Mark]:
    """Mark of every frame: the masks decide; labels say only why a frame is in neither mask."""
    at = sequence.decision_positions
    return [
        Mark.POS if p else Mark.NEG if n else Mark.NEITHER if label == -1 else Mark.SKIPPED
        for p, n, label in zip(pos[at].tolist(), neg[at].tolist(), labels.tolist(), strict=True)
    ]


def _parts(
    sequence: TokenSequence, cells: Sequence[FrameCell], chat: Chat
) -> Iterator[Turn | Frames]:
    """Turns and frames; a separator between two frames belongs to the later one."""
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
