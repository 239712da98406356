"""One training example, read back from its tokens: what the model sees, which loss is where.

Nothing is worked out anew: text is decoded from the sequence, losses are its labels, decisions the
masks of ``sequence.sampling``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.report.example_parts import FrameCell, Frames, Mark, Turn, read_parts
from proassist_lit.sequence.builder import TokenSequence
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.examples import build_example_sequence
from proassist_lit.sequence.rules import OURS, SequenceRules
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.types import IGNORE_INDEX


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
        has_updates: whether there are update decisions: the record tracks a state, or the rules
            want one at every frame.
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
    has_updates: bool
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
    rules: SequenceRules = OURS,
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
        rules: whose rules make the sequence.

    Raises:
        RecordError: not even the first frame fits.
    """
    sequence = build_example_sequence(
        conversation, chat, num_tokens_per_img=num_tokens_per_img, max_seq_len=max_seq_len,
        rules=rules,
    )  # fmt: skip
    decisions = sample_decisions(
        sequence,
        rho=rho,
        turn_frames=turn_frames,
        seed=seed,
        epoch=epoch,
        record_id=conversation.id,
        rules=rules,
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
        has_updates=rules.feed_updates and bool(conversation.steps or rules.label_every_frame),
        response_tokens=int((sequence.labels != IGNORE_INDEX).sum()),
        dst_tokens=int((sequence.dst_labels != IGNORE_INDEX).sum()),
        parts=tuple(read_parts(sequence, cells, chat)),
    )


def _marks(sequence: TokenSequence, labels: Tensor, pos: Tensor, neg: Tensor) -> list[Mark]:
    """Mark of every frame: the masks decide; labels say only why a frame is in neither mask."""
    at = sequence.decision_positions
    return [
        Mark.POS if p else Mark.NEG if n else Mark.NEITHER if label == -1 else Mark.SKIPPED
        for p, n, label in zip(pos[at].tolist(), neg[at].tolist(), labels.tolist(), strict=True)
    ]
