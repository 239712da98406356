from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from proassist_lit.data.conversation import (
    AssistantTurn,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.sequence.builder import TokenSequence, build_sequence, prefix_ids
from proassist_lit.sequence.chat import FORMATS, Chat
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import read_script
from proassist_lit.types import StepState, Transition, Update
from tests.fakes import DIALOGUE, NOT_STARTED, SEPARATOR, WordTokenizer, dialogue, word_chat

# What the builder must write, piece by piece: (text, kind). Kinds: "" no loss, "asst" in labels,
# "dst" in dst_labels, "sep" written only where the format has a separator. A frame is
# (speak, dst): 1 yes, 0 no, -1 neither.
COMPACT = [
    ("<|begin|>", ""),
    ("<|system|> please help Steps: S1: wash. S2: peel. <|end|>", ""),
    ("<|user|> make soup <|end|>", ""),
    (1, 0),  # frame 10
    ("<|assistant|>", ""), ("first wash <|end|>", "asst"),
    (0, 0), ("sep", "sep"), (0, 0), ("sep", "sep"), (0, 1),  # frames 11, 12, 13
    ("<|dst|>", ""), ("S1->start <|end|>", "dst"),
    (1, 1),  # frame 14
    ("<|dst|>", ""), ("S1->complete;S2->start <|end|>", "dst"),
    ("<|assistant|>", ""), ("well done now peel <|end|>", "asst"),
    (0, 0), ("sep", "sep"), (-1, -1),  # frames 15, 16: the user speaks after 16
    ("<|user|> how many <|end|>", ""),
    (1, 0),  # frame 17
    ("<|assistant|>", ""), ("one of two <|end|>", "asst"),
    (0, 0), ("sep", "sep"), (-1, -1),  # frames 18, 19: the sample ends after 19
]  # fmt: skip
CHATML = [
    ("<|im_start|> system \n please help Steps: S1: wash. S2: peel. <|im_end|> \n", ""),
    ("<|im_start|> user \n make soup <|im_end|> \n", ""),
    (1, 0),
    ("<|im_start|> assistant \n first wash <|im_end|>", "asst"), ("\n", ""),
    (0, 0), ("sep", "sep"), (0, 0), ("sep", "sep"), (0, 1),
    ("<|im_start|> dst \n S1->start <|im_end|>", "dst"), ("\n", ""),
    (1, 1),
    ("<|im_start|> dst \n S1->complete;S2->start <|im_end|>", "dst"), ("\n", ""),
    ("<|im_start|> assistant \n well done now peel <|im_end|>", "asst"), ("\n", ""),
    (0, 0), ("sep", "sep"), (-1, -1),
    ("<|im_start|> user \n how many <|im_end|> \n", ""),
    (1, 0),
    ("<|im_start|> assistant \n one of two <|im_end|>", "asst"), ("\n", ""),
    (0, 0), ("sep", "sep"), (-1, -1),
]  # fmt: skip
GOLDEN = {"compact": COMPACT, "chatml": CHATML}
ROWS = ("ids", "labels", "dst_labels", "image", "pos", "neg", "dst_pos", "dst_neg")


def expected(name: str, num_tokens_per_img: int, *, separator: bool) -> dict[str, list[int]]:
    vocabulary = WordTokenizer()
    rows: dict[str, list[int]] = {row: [] for row in ROWS}
    for piece, kind in GOLDEN[name]:
        if isinstance(piece, int):
            speak, dst = piece, kind
            for k in range(num_tokens_per_img):
                last = k == num_tokens_per_img - 1
                flags = (speak == 1, speak == 0, dst == 1, dst == 0)
                values = (vocabulary.words.index("<image>"), -100, -100, 1,
                          *(int(last and flag) for flag in flags))  # fmt: skip
                for row, value in zip(ROWS, values, strict=True):
                    rows[row].append(value)
            continue
        if kind == "sep" and not separator:
            continue
        for word in [SEPARATOR] if kind == "sep" else piece.split(" "):
            token = vocabulary.words.index(word)
            values = (token, token if kind == "asst" else -100, token if kind == "dst" else -100,
                      0, 0, 0, 0, 0)  # fmt: skip
            for row, value in zip(ROWS, values, strict=True):
                rows[row].append(value)
    return rows


def build(
    turns=DIALOGUE, *, chat: Chat | None = None, k: int = 1, max_seq_len: int = 4096, **kwargs
) -> TokenSequence:
    return build_sequence(
        read_script(dialogue(turns, **kwargs)),
        chat or word_chat(),
        num_tokens_per_img=k,
        max_seq_len=max_seq_len,
    )


def all_masks(sequence: TokenSequence):
    return sample_decisions(sequence, rho=1.0, turn_frames=None, seed=0, epoch=0, record_id="video")


CASES = [
    pytest.param(name, k, separator, id=f"{name}-K{k}-{'sep' if separator else 'plain'}")
    for name in GOLDEN
    for k in (1, 5)
    for separator in (False, True)
]


@pytest.mark.parametrize(("name", "k", "separator"), CASES)
def test_builder_writes_the_golden_tokens_labels_and_masks(
    name: str, k: int, separator: bool
) -> None:
    sequence = build(chat=word_chat(name, separator=separator), k=k)
    masks = all_masks(sequence)
    rows = expected(name, k, separator=separator)

    assert sequence.input_ids.tolist() == rows["ids"]
    assert sequence.labels.tolist() == rows["labels"]
    assert sequence.dst_labels.tolist() == rows["dst_labels"]
    assert sequence.image_mask.long().tolist() == rows["image"]
    assert masks.pos_frame_mask.long().tolist() == rows["pos"]
    assert masks.neg_frame_mask.long().tolist() == rows["neg"]
    assert masks.dst_pos_frame_mask.long().tolist() == rows["dst_pos"]
    assert masks.dst_neg_frame_mask.long().tolist() == rows["dst_neg"]
    assert sequence.frame_indices.tolist() == list(range(10, 20))


@pytest.mark.parametrize(("name", "k", "separator"), CASES)
def test_builder_rules_hold(name: str, k: int, separator: bool) -> None:
    sequence = build(chat=word_chat(name, separator=separator), k=k)
    masks = all_masks(sequence)
    ids = sequence.input_ids

    for labels in (sequence.labels, sequence.dst_labels):
        assert ((labels == -100) | (labels == ids)).all()
        assert labels[0] == -100  # every supervised token has a token before it to predict it
        assert (labels[sequence.image_mask] == -100).all()  # silence is never in the labels
    assert not ((sequence.labels != -100) & (sequence.dst_labels != -100)).any()
    decisions = torch.zeros(len(ids), dtype=torch.bool)
    decisions[sequence.decision_positions] = True
    assert sequence.image_mask[decisions].all()
    assert len(sequence.decision_positions) * k == int(sequence.image_mask.sum())
    for pos, neg in (
        (masks.pos_frame_mask, masks.neg_frame_mask),
        (masks.dst_pos_frame_mask, masks.dst_neg_frame_mask),
    ):
        assert not (pos & neg).any()
        assert not ((pos | neg) & ~decisions).any()


def test_supervised_tokens_are_predicted_from_the_token_before() -> None:
    chat = word_chat("compact")
    sequence = build(chat=chat)
    vocabulary = chat.tokenizer.words
    learnt = (sequence.labels != -100).nonzero().flatten().tolist()
    starts = [i for i in learnt if i - 1 not in learnt]

    # The first learnt word is predicted from the opening; a learnt opening from the frame.
    assert [vocabulary[int(sequence.input_ids[i - 1])] for i in starts] == ["<|assistant|>"] * 3
    chatml = build(chat=word_chat("chatml"))
    learnt = (chatml.labels != -100).nonzero().flatten().tolist()
    starts = [i for i in learnt if i - 1 not in learnt]
    before = [vocabulary[int(chatml.input_ids[i - 1])] for i in starts]
    assert before == ["<image>", "\n", "<image>"]  # the second stands after a dst span's closing


def test_train_openings_false_leaves_openings_out() -> None:
    table = replace(FORMATS["chatml"], train_openings=False)
    sequence = build(chat=Chat(table, WordTokenizer()))
    words = WordTokenizer().words

    learnt = [words[i] for i in sequence.labels[sequence.labels != -100].tolist()]

    assert learnt == [
        *("first", "wash", "<|im_end|>"),
        *("well", "done", "now", "peel", "<|im_end|>"),
        *("one", "of", "two", "<|im_end|>"),
    ]


def test_cut_ends_at_a_whole_frame_and_supervises_nothing_after_it() -> None:
    whole = build(k=5)
    positions = whole.decision_positions.tolist()
    # one past the last token of each frame's part: the next frame begins there
    dst_end = whole.input_ids.tolist().index(word_chat().encode("S1->start")[0]) + 2

    for max_seq_len, num_frames in (
        (len(whole.input_ids), 10),
        (len(whole.input_ids) - 1, 9),
        (dst_end, 4),  # frame 13 with its dst span fits exactly
        (dst_end - 1, 3),  # its span does not: the frame goes too
        (positions[0] + 5, 1),  # frame 10 with its words
    ):
        cut = build(k=5, max_seq_len=max_seq_len)
        length = len(cut.input_ids)
        assert length <= max_seq_len
        assert len(cut.decision_positions) == num_frames
        assert len(cut.speak_labels) == len(cut.frame_indices) == num_frames
        assert cut.labels.tolist() == whole.labels[:length].tolist()
        assert cut.dst_labels.tolist() == whole.dst_labels[:length].tolist()
        assert cut.input_ids.tolist() == whole.input_ids[:length].tolist()
        assert int(cut.image_mask.sum()) == 5 * num_frames


def test_builder_refuses_a_limit_below_the_first_frame() -> None:
    with pytest.raises(ValueError, match=r"max_seq_len = 12.*raise data\.max_seq_len"):
        build(max_seq_len=12)


def test_assistant_text_without_a_frame_is_learnt_without_a_decision() -> None:
    turns = (
        AssistantTurn(content="it is all good"),
        FramesTurn(start=0, end=2),
        UserTurn(content="how many"),
        AssistantTurn(content="one of two"),
        FramesTurn(start=2, end=4),
        UserTurn(content="wait"),
        AssistantTurn(content="well done"),
    )
    chat = word_chat()
    sequence = build(turns, steps=())
    learnt = chat.decode(sequence.labels[sequence.labels != -100].tolist())

    assert learnt == "it is all good one of two well done"
    assert sequence.speak_labels.tolist() == [0, -1, 0, -1]
    assert not all_masks(sequence).pos_frame_mask.any()


def test_text_after_the_last_frame_is_left_out_where_it_does_not_fit() -> None:
    turns = (FramesTurn(start=0, end=1), UserTurn(content="wait"), AssistantTurn(content="good"))
    whole = build(turns, steps=())
    cut = build(turns, steps=(), max_seq_len=len(whole.input_ids) - 1)

    assert (whole.labels != -100).any()
    assert len(cut.input_ids) == 2  # begin, frame
    assert not (cut.labels != -100).any()


def test_dst_without_a_frame_is_learnt_without_a_decision() -> None:
    turns = (
        FramesTurn(start=0, end=1),
        UserTurn(content="wait"),
        DstTurn(updates=(Update("S1", Transition.START),)),
        FramesTurn(start=1, end=2),
    )
    sequence = build(turns)

    assert (sequence.dst_labels != -100).sum() == 2
    assert sequence.dst_update_labels.tolist() == [-1, -1]


def test_frame_before_system_text_is_neither() -> None:
    turns = (FramesTurn(start=0, end=2), SystemTurn(content="help"), FramesTurn(start=2, end=4))

    assert build(turns, steps=()).speak_labels.tolist() == [0, -1, 0, -1]


def test_record_without_steps_has_no_dst_decisions() -> None:
    turns = tuple(turn for turn in DIALOGUE if not isinstance(turn, DstTurn))
    masks = all_masks(build(turns, steps=()))

    assert masks.neg_frame_mask.any()
    assert not masks.dst_pos_frame_mask.any()
    assert not masks.dst_neg_frame_mask.any()


def test_prefix_tells_state_and_summary() -> None:
    chat = word_chat()
    script = read_script(dialogue())
    state = NOT_STARTED | {"S1": StepState.COMPLETED, "S2": StepState.IN_PROGRESS}

    ids = prefix_ids(chat, script, state, "Summary: so far")

    words = [chat.tokenizer.words[i] for i in ids]
    assert " ".join(words) == (
        "<|begin|> <|system|> please help Summary: so far "
        "Steps: S1: wash (completed). S2: peel (in progress). <|end|>"
    )
