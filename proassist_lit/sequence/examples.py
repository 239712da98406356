"""Training examples: conversations as tokens, with the decisions of an epoch chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from torch import Tensor
from torch.utils.data import Dataset

from proassist_lit.data.conversation import Conversation
from proassist_lit.errors import RecordError
from proassist_lit.sequence.builder import TokenSequence, build_sequence
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.ground_truth import relevance_labels
from proassist_lit.sequence.rules import OURS, SequenceRules
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import read_script
from proassist_lit.types import Example


def build_example_sequence(
    conversation: Conversation,
    chat: Chat,
    *,
    num_tokens_per_img: int,
    max_seq_len: int,
    rules: SequenceRules = OURS,
    relevance: bool = False,
) -> TokenSequence:
    """Write a record as the token sequence that it is trained on.

    Args:
        conversation: the record.
        chat: the formatter.
        num_tokens_per_img: K.
        max_seq_len: most tokens; what does not fit is cut off at a whole frame.
        rules: where the sources' rules differ from ours.
        relevance: whether the frames are labelled relevant or not.

    Raises:
        RecordError: not even the first frame fits, naming the record.
    """
    labels = None
    if relevance:  # known by the updates, whether or not they are written
        labels = relevance_labels(read_script(conversation, replace(rules, feed_updates=True)))
    try:
        return build_sequence(
            read_script(conversation, rules), chat,
            num_tokens_per_img=num_tokens_per_img, max_seq_len=max_seq_len, relevance=labels,
        )  # fmt: skip
    except ValueError as error:
        raise RecordError(f"{conversation.source}: {error}") from error


class ExampleSet(Dataset[Example]):
    """Map-style data set over (epoch, index): an item is a pure function of the two.

    Args:
        conversations: the records.
        read_features: gives the (F, K, E) features of a record.
        chat: the formatter.
        num_tokens_per_img: K.
        max_seq_len: longest sequence, tokens.
        rho: share of silent decisions that is trained on.
        turn_frames: silent frames of a turn, None for a decision at every frame.
        seed: seed of the run.
        smoothing_s: width of temporal label smoothing, seconds.
        rules: where the sources' rules differ from ours.
        relevance: whether it is learnt which frames have to do with the task.

    Raises:
        RecordError: a record does not fit at all, naming it; or relevance is learnt, and in no
            record a step is ever under way.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        read_features: Callable[[Conversation], Tensor],
        chat: Chat,
        *,
        num_tokens_per_img: int,
        max_seq_len: int,
        rho: float,
        turn_frames: int | None,
        seed: int,
        smoothing_s: float = 0.0,
        rules: SequenceRules = OURS,
        relevance: bool = False,
    ) -> None:
        self._conversations = conversations
        self._read_features = read_features
        self._rho, self._turn_frames, self._seed = rho, turn_frames, seed
        self._smoothing_s, self._rules = smoothing_s, rules
        self.sequences: list[TokenSequence] = []
        for conversation in conversations:
            sequence = build_example_sequence(
                conversation, chat, num_tokens_per_img=num_tokens_per_img,
                max_seq_len=max_seq_len, rules=rules, relevance=relevance,
            )  # fmt: skip
            self.sequences.append(sequence)
        if relevance:
            self._check_relevance()

    @property
    def lengths(self) -> list[int]:
        """Tokens of every sequence."""
        return [len(sequence.input_ids) for sequence in self.sequences]

    @property
    def frames_cut(self) -> list[int]:
        """Frames at the end of every conversation that its sequence has no room for."""
        both = zip(self._conversations, self.sequences, strict=True)
        return [record.num_frames - len(seq.decision_positions) for record, seq in both]

    @property
    def decides_updates(self) -> bool:
        """Whether at any frame it is known if the state is to be updated."""
        return any(bool((seq.dst_update_labels >= 0).any()) for seq in self.sequences)

    @property
    def teaches_summaries(self) -> bool:
        """Whether a request for a summary is answered in any conversation."""
        for conversation in self._conversations:
            script = read_script(conversation, self._rules)
            said = (text for m in script.moments for text in (*m.before, *m.spans))
            if any(text.is_summary for text in (*said, *script.after)):
                return True
        return False

    def name(self, index: int) -> str:
        """Name of the conversation of example ``index``, with the file and line it is from."""
        conversation = self._conversations[index]
        return f"{conversation.id} ({conversation.source})"

    def _check_relevance(self) -> None:
        labels = (sequence.relevance_labels for sequence in self.sequences)
        if not any(1 in found.tolist() for found in labels if found is not None):
            raise RecordError(
                f"{self._conversations[0].source} and {len(self._conversations) - 1} others: in no "
                "conversation a step is ever under way, so nothing teaches which frames are "
                "relevant (model.decision=informative_relevance); take data whose records have "
                "steps and updates (data.dialogue.steps=true where it is drawn), or "
                "model.decision=head."
            )

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        """Example ``index`` as epoch ``epoch`` sees it."""
        epoch, index = key
        sequence, conversation = self.sequences[index], self._conversations[index]
        decisions = sample_decisions(
            sequence,
            rho=self._rho,
            turn_frames=self._turn_frames,
            seed=self._seed,
            epoch=epoch,
            record_id=conversation.id,
            smoothing_s=self._smoothing_s,
            fps=conversation.fps,
            rules=self._rules,
        )
        kept = conversation.start_frame_idx + len(sequence.frame_indices)  # the rest was cut off
        features = self._read_features(replace(conversation, end_frame_idx=kept))
        return Example(
            input_ids=sequence.input_ids,
            image_mask=sequence.image_mask,
            image_features=features.flatten(0, 1),
            labels=sequence.labels,
            dst_labels=sequence.dst_labels,
            **{f.name: getattr(decisions, f.name) for f in fields(decisions)},
        )
