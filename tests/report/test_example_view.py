from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    UserTurn,
)
from proassist_lit.errors import RecordError
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.report.example_parts import Frames, Kind, Loss, Mark, Turn
from proassist_lit.report.example_report import clock, example_page, facts, terminal_view
from proassist_lit.report.example_view import ExampleView, view_example
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.chat import FORMATS, Chat
from proassist_lit.sequence.rules import DST_EXTENSION, PROASSIST
from proassist_lit.sequence.sampling import sample_decisions
from proassist_lit.sequence.script import read_script
from tests.fakes import SEPARATOR, WORDS, dialogue

BASE: dict[str, Any] = {
    "num_tokens_per_img": 1, "max_seq_len": 4096, "rho": 1.0, "turn_frames": None,
    "seed": 1, "epoch": 0,
}  # fmt: skip


def chat(name: str = "compact", *, separator: bool = False) -> Chat:
    table = replace(FORMATS[name], separator=SEPARATOR if separator else "")
    eos = table.end_of_turn or "</s>"
    special = (*table.special_tokens, eos, *((SEPARATOR,) if separator else ()))
    trained = replace(table, end_of_turn=eos, special_tokens=special)
    return Chat(table, train_tokenizer([WORDS], trained, vocab_size=400))


def view(
    conversation: Conversation | None = None, formatter: Chat | None = None, **options: Any
) -> ExampleView:
    return view_example(conversation or dialogue(), formatter or chat(), **{**BASE, **options})


def outline(shown: ExampleView) -> list[tuple[Kind, list[tuple[Loss, str]]] | list[int]]:
    """Turns with what each piece bears; frames as their indices."""
    return [
        [cell.frame_idx for cell in part.cells]
        if isinstance(part, Frames)
        else (part.kind, [(piece.loss, piece.text) for piece in part.pieces])
        for part in shown.parts
    ]


def test_view_shows_turns_and_frames_in_the_order_of_the_tokens() -> None:
    fed, words, updates = Loss.NONE, Loss.RESPONSE, Loss.DST
    prompt = "please help Steps: S1: wash. S2: peel."
    assert outline(view()) == [
        (Kind.PROMPT, [(fed, f"<|begin|><|system|>{prompt}<|end|>")]),
        (Kind.USER, [(fed, "<|user|>make soup<|end|>")]),
        [10],
        (Kind.ASSISTANT, [(fed, "<|assistant|>"), (words, "first wash<|end|>")]),
        [11, 12, 13],
        (Kind.DST, [(fed, "<|dst|>"), (updates, "S1->start<|end|>")]),
        [14],
        (Kind.DST, [(fed, "<|dst|>"), (updates, "S1->complete;S2->start<|end|>")]),
        (Kind.ASSISTANT, [(fed, "<|assistant|>"), (words, "well done now peel<|end|>")]),
        [15, 16],
        (Kind.USER, [(fed, "<|user|>how many<|end|>")]),
        [17],
        (Kind.ASSISTANT, [(fed, "<|assistant|>"), (words, "one of two<|end|>")]),
        [18, 19],
    ]


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("separator", [False, True])
@pytest.mark.parametrize("num_tokens_per_img", [1, 5])
def test_view_loses_no_token_and_finds_every_frame(
    name: str, separator: bool, num_tokens_per_img: int
) -> None:
    formatter = chat(name, separator=separator)
    shown = view(formatter=formatter, num_tokens_per_img=num_tokens_per_img)
    sequence = build_sequence(read_script(dialogue()), formatter,
                              num_tokens_per_img=num_tokens_per_img, max_seq_len=4096)  # fmt: skip
    assert [cell.position for cell in shown.cells] == sequence.decision_positions.tolist()
    assert [cell.frame_idx for cell in shown.cells] == sequence.frame_indices.tolist()
    starts = [part.position for part in shown.parts] + [len(sequence.input_ids)]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    for part, end in zip(shown.parts, starts[1:], strict=True):
        if isinstance(part, Turn):
            assert sum(piece.num_tokens for piece in part.pieces) == end - part.position
            text = formatter.tokenizer.decode(sequence.input_ids[part.position : end].tolist())
            assert "".join(piece.text for piece in part.pieces) == text
        else:
            assert part.cells[-1].position == end - 1
    kinds = [part.kind for part in shown.parts if isinstance(part, Turn)]
    assert kinds.count(Kind.ASSISTANT) == 3
    assert kinds.count(Kind.DST) == 2
    frames = [[c.frame_idx for c in part.cells] for part in shown.parts if isinstance(part, Frames)]
    assert frames == [[10], [11, 12, 13], [14], [15, 16], [17], [18, 19]]


def test_view_marks_frames_exactly_where_the_builder_has_them() -> None:
    shown = view()
    assert "".join(cell.speak.value for cell in shown.cells) == "+−−−+−○+−○"
    assert "".join(cell.dst.value for cell in shown.cells) == "−−−++−○−−○"
    assert [cell.frame_idx for cell in shown.cells if cell.speak is Mark.POS] == [10, 14, 17]
    assert (shown.count(Mark.POS), shown.count(Mark.NEG), shown.count(Mark.NEITHER)) == (3, 5, 2)
    assert (shown.count(Mark.POS, dst=True), shown.count(Mark.NEG, dst=True)) == (2, 6)


@pytest.mark.parametrize(("rho", "turn_frames"), [(0.5, None), (1.0, 2), (0.0, 2), (0.5, 1)])
def test_view_shows_what_is_trained_on_in_the_epoch(rho: float, turn_frames: int | None) -> None:
    formatter = chat()
    sequence = build_sequence(
        read_script(dialogue()), formatter, num_tokens_per_img=1, max_seq_len=4096
    )
    for epoch in range(4):
        options: dict[str, Any] = {"rho": rho, "turn_frames": turn_frames, "seed": 5}
        masks = sample_decisions(sequence, **options, epoch=epoch, record_id=dialogue().id)
        shown = view(formatter=formatter, epoch=epoch, **options)
        for mark, speak, dst in (
            (Mark.POS, masks.pos_frame_mask, masks.dst_pos_frame_mask),
            (Mark.NEG, masks.neg_frame_mask, masks.dst_neg_frame_mask),
        ):
            assert [c.position for c in shown.cells if c.speak is mark] == indices(speak)
            assert [c.position for c in shown.cells if c.dst is mark] == indices(dst)
        assert shown.count(Mark.NEITHER) == 2


def indices(mask: Any) -> list[int]:
    return [int(i) for i in mask.nonzero().flatten()]


def test_view_counts_where_each_loss_applies() -> None:
    shown = view(num_tokens_per_img=5)
    formatter = chat()
    words = ["first wash", "well done now peel", "one of two"]
    updates = ["S1->start", "S1->complete;S2->start"]
    assert shown.response_tokens == sum(len(formatter.encode(text)) + 1 for text in words)
    assert shown.dst_tokens == sum(len(formatter.encode(text)) + 1 for text in updates)
    assert shown.num_prefix_tokens == shown.cells[0].position - 4
    by_name = dict(facts(shown))
    assert by_name["frames"] == "10; 0:05.0 to 0:09.5 at 2 fps"
    assert by_name["speak decisions"] == "3 pos, 5 neg; 0 not trained on, 2 neither"
    assert by_name["update decisions"] == "2 pos, 6 neg; 0 not trained on, 2 neither"
    assert by_name["words, language-model loss"].startswith(f"{shown.response_tokens} tokens")
    assert "50 of images (K = 5 a frame)" in by_name["tokens"]


def test_tokens_over_time_end_at_the_last_decision() -> None:
    shown = view()
    points = shown.tokens_over_time()
    assert points[0] == (5.0, shown.num_prefix_tokens + 1)
    assert points[-1] == (9.5, shown.num_tokens)
    assert len(points) == 10


def test_silent_frames_are_folded_and_frames_to_act_at_are_not() -> None:
    turns = (
        FramesTurn(start=0, end=30),
        AssistantTurn(content="wash"),
        FramesTurn(start=30, end=40),
    )
    [_, first, _, second] = view(dialogue(turns, steps=())).parts
    assert isinstance(first, Frames)
    assert isinstance(second, Frames)
    assert [len(run) for run in first.runs()] == [29, 1]
    assert [len(run) for run in second.runs()] == [9, 1]  # the last one is neither


def test_turns_without_opening_or_prompt_are_told_apart() -> None:
    user = view(dialogue((UserTurn(content="how many"), FramesTurn(start=0, end=2)), steps=()))
    assert isinstance(user.parts[0], Turn)
    assert user.parts[0].kind is Kind.USER  # BOS included
    turns = (
        FramesTurn(start=0, end=2),
        SystemTurn(content="please help"),
        AssistantTurn(content="wash"),
        FramesTurn(start=2, end=4),
    )
    bare = view(dialogue(turns, steps=()), chat("dst_ext"))
    assert outline(bare) == [
        [0, 1],
        (Kind.TEXT, [(Loss.NONE, "please help")]),
        (Kind.ASSISTANT, [(Loss.NONE, "[ASST]"), (Loss.RESPONSE, "wash</s>")]),
        [2, 3],
    ]


def test_decisions_that_differ_are_shown_apart() -> None:
    shown = view(dialogue((FramesTurn(start=0, end=4),)))
    [*turns, frames] = shown.parts
    assert isinstance(frames, Frames)
    cells = tuple(replace(cell, dst=Mark.SKIPPED) for cell in frames.cells)
    assert "SU−" in terminal(shown)
    assert "S− U·" in terminal(replace(shown, parts=(*turns, replace(frames, cells=cells))))


def test_cut_example_says_so() -> None:
    shown = view(max_seq_len=view().num_tokens - 1)
    assert len(shown.cells) == 9
    assert dict(facts(shown))["frames"].startswith("9 of 10; cut at the longest")
    with pytest.raises(RecordError, match=r"train\.jsonl:1: the prompt and the first frame do not"):
        view(max_seq_len=3)


def terminal(shown: ExampleView) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal_view(shown, ["a note"]))
    return console.file.getvalue()


def test_terminal_has_signs_for_all_that_is_coloured() -> None:
    text = terminal(view())
    assert "▣ 10 (0:05.0) S+ U−" in text
    assert "▣×2 11–12 (0:05.5–0:06.0) SU−" in text
    assert "▣ 13 (0:06.5) S− U+" in text
    assert "⟦first wash<|end|>⟧" in text
    assert "⟪S1->complete;S2->start<|end|>⟫" in text
    assert "a note" in text
    assert "tokens over time" in text
    assert re.search(r"0:05\.0 +0:09\.5", text)
    without_steps = terminal(view(dialogue((FramesTurn(start=0, end=5),), steps=())))
    assert "▣×4 0–3 (0:00.0–0:01.5) S−" in without_steps
    assert "the record lists no steps" in without_steps


def test_runs_of_sampled_frames_have_a_mark_a_frame() -> None:
    frames = dialogue((FramesTurn(start=0, end=9),), steps=())
    text = terminal(view(frames, turn_frames=2))
    assert "▣×8 0–7 (0:00.0–0:03.5) S·−·−·−·−\n" in re.sub(r" +\n", "\n", text)


def test_page_is_self_contained_and_escaped() -> None:
    turns = (SystemTurn(content="<b>[red] &"), FramesTurn(start=0, end=3))
    page = example_page(view(dialogue(turns)), ["a <note>"])
    assert not re.search(r"https?:|<script|<link|src=|url\(", page)
    assert "&lt;b&gt;[red] &amp;" in page
    assert "a &lt;note&gt;" in page
    page = example_page(view())
    assert '<span class="response" title="' in page
    assert "⟦first wash&lt;|end|&gt;⟧" in page
    assert '<span class="cell acts" title="decision token' in page
    assert '<span class="cell updates" title="decision token' in page
    assert "prefers-color-scheme: dark" in page
    assert "<polyline" in page


@pytest.mark.parametrize(
    ("time_s", "said"), [(0, "0:00.0"), (59.96, "1:00.0"), (3661.5, "61:01.5")]
)
def test_clock(time_s: float, said: str) -> None:
    assert clock(time_s) == said


def test_rules_of_the_references_are_shown_as_they_train() -> None:
    # Two utterances at frame 14, and a frames turn that ends at 18.
    theirs = view(rules=PROASSIST)
    assert [kind for kind, _ in texts(theirs)].count(Kind.ASSISTANT) == 4
    assert [kind for kind, _ in texts(view())].count(Kind.ASSISTANT) == 3
    speak = {cell.frame_idx: cell.speak for cell in theirs.cells}
    assert (speak[18], view().cells[8].speak) == (Mark.NEITHER, Mark.NEG)

    extension = view(formatter=chat("dst_ext"), rules=DST_EXTENSION)
    assert not any(kind is Kind.USER for kind, _ in texts(extension))
    assert extension.count(Mark.NEITHER) == extension.count(Mark.NEITHER, dst=True) == 0


def texts(shown: ExampleView) -> list[tuple[Kind, str]]:
    return [
        (part.kind, "".join(piece.text for piece in part.pieces))
        for part in shown.parts
        if isinstance(part, Turn)
    ]


def test_update_decisions_without_steps_are_shown_where_the_rules_want_them() -> None:
    bare = replace(dialogue(), steps=(), initial_state={})
    bare = replace(bare, turns=tuple(t for t in bare.turns if not isinstance(t, DstTurn)))
    assert "none: the record lists no steps" in str(facts(view(bare)))
    extension = view(bare, rules=DST_EXTENSION)
    assert extension.count(Mark.NEG, dst=True) == 10
    assert "0 pos, 10 neg" in dict(facts(extension))["update decisions"]


def test_sub_sampling_follows_the_rules() -> None:
    # Ours takes floor(0.01 * 6) silent frames, ProAssist one of every frames turn.
    assert view(rho=0.01).count(Mark.SKIPPED) == 4
    shown = view(rho=0.01, rules=PROASSIST)
    assert shown.count(Mark.NEG) > view(rho=0.01).count(Mark.NEG)
