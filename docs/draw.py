"""Draws the pictures of the documentation from what the code makes of one small conversation.

``python docs/draw.py`` writes ``docs/pictures/*.svg``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from picture import BLUE, GREEN, GREY, ORANGE, PALE, VIOLET, Picture

from proassist_lit.data.conversation import (
    AssistantTurn,
    Conversation,
    DstTurn,
    FramesTurn,
    SystemTurn,
    TaskStep,
    UserTurn,
)
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.builder import TokenSequence, build_sequence
from proassist_lit.sequence.chat import Chat, chat_format
from proassist_lit.sequence.sampling import sample_decisions, turn_ends
from proassist_lit.sequence.script import Script, read_script
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.streaming.context import ContextManager
from proassist_lit.streaming.policy import DecisionPolicy
from proassist_lit.types import IGNORE_INDEX, StepState, Transition, Update

FOLDER = Path(__file__).parent / "pictures"

K = 2  # image tokens of a frame in the pictures
MAKE_TEA = Conversation(
    dataset="toy",
    video_uid="tea",
    clip_idx=0,
    frames_file="frames/tea",
    fps=2.0,
    num_tokens_per_img=K,
    start_frame_idx=0,
    end_frame_idx=12,
    steps=(TaskStep(id="S1", name="boil water"), TaskStep(id="S2", name="pour")),
    initial_state={"S1": StepState.NOT_STARTED, "S2": StepState.NOT_STARTED},
    turns=(
        SystemTurn(content="Help."),
        UserTurn(content="Make tea"),
        FramesTurn(start=0, end=1),
        AssistantTurn(content="Boil water"),
        FramesTurn(start=1, end=4),
        DstTurn(updates=(Update("S1", Transition.START),)),
        FramesTurn(start=4, end=8),
        DstTurn(updates=(Update("S1", Transition.COMPLETE), Update("S2", Transition.START))),
        AssistantTurn(content="Now pour"),
        FramesTurn(start=8, end=10),
        UserTurn(content="Ready?"),
        FramesTurn(start=10, end=12),
        AssistantTurn(content="Yes"),
    ),
)
"""Twelve frames, three utterances, one question, two steps."""
SUMMARY = "The water boiled; now it is poured."


def make_chat() -> Chat:
    """The compact chat format, with a vocabulary made of the conversation's own words."""
    table = chat_format("compact")
    turns = [text.content for text in MAKE_TEA.turns if not isinstance(text, FramesTurn | DstTurn)]
    steps = "Steps: S1: boil water (completed). S2: pour (in progress)."
    words = [*" ".join((*turns, SUMMARY, steps)).split(), "->start", "->complete", ";"]
    texts = [f"{before}{word}" for word in words for before in ("", " ") for _ in range(50)]
    return Chat(table, train_tokenizer(texts, table, 700))


def draw_sequence(chat: Chat, script: Script, sequence: TokenSequence) -> Picture:
    """Tokens of the first nine frames in rows, with what each of them is for."""
    picture = Picture(860, 392, "A conversation as tokens: what is read, where, and what is learnt")
    ids, end = sequence.input_ids.tolist(), int(sequence.decision_positions[8]) + 1
    decisions = set(sequence.decision_positions.tolist())
    first_image = ids.index(chat.image_id)
    x, y, prefix_drawn = 20.0, 48.0, False
    for i in range(end):
        word = chat.tokenizer.decode([ids[i]]).strip()
        fill, label = GREY, ""
        if ids[i] == chat.image_id:
            word, fill = "img", ORANGE if i in decisions else PALE
        elif sequence.dst_labels[i] != IGNORE_INDEX:
            fill, label = VIOLET, "learnt"
        elif sequence.labels[i] != IGNORE_INDEX:
            fill, label = GREEN, "learnt"
        width = max(7.4 * len(word) + 12, 36)
        if x + width > 840:
            x, y = 20.0, y + 74
        if i == 0:
            picture.text(x, y - 14, "prefix", size=12.5)
        if i == first_image and not prefix_drawn:
            picture.text(x, y - 14, "frames and words as they come", size=12.5)
            prefix_drawn = True
        picture.box(x, y, width, 26, fill, text=word, size=12)
        if label:
            picture.line([(x + 2, y + 31), (x + width - 2, y + 31)])
        if i in decisions:
            frame = sequence.decision_positions.tolist().index(i)
            picture.arrow(x + width / 2, y + 30, x + width / 2, y + 42)
            speak, dst = (script.moments[frame].speak_label, script.moments[frame].dst_label)
            picture.text(x + width / 2, y + 55, f"{speak} | {dst}", size=12, at="middle")
        x += width + 4
    y += 92
    picture.legend(y, [
        (ORANGE, "decision token: speak | update"), (PALE, "other image token"),
        (GREY, "read, not learnt"), (GREEN, "words, learnt"), (VIOLET, "updates, learnt"),
    ])  # fmt: skip
    picture.text(20, y + 26, "Underlined tokens bear the language-model loss. Silence is never "
                 "among them: nothing is written after a silent frame.", size=12.5)  # fmt: skip
    picture.height = y + 40
    return picture


_COLORS = {1: ORANGE, 0: BLUE, -1: "none"}
_SIGNS = {1: "pos", 0: "neg", -1: ""}


def _frame_row(
    picture: Picture, y: float, name: str, labels: Sequence[int], left: float = 190
) -> None:
    picture.text(left - 12, y + 18, name, size=12.5, at="end")
    for i, label in enumerate(labels):
        picture.box(left + 52 * i, y, 48, 26, _COLORS[label], text=_SIGNS[label], size=12,
                    stroke=GREY if label < 0 else "none", dash=label < 0)  # fmt: skip


def _frame_heads(picture: Picture, script: Script, left: float = 190) -> None:
    """Numbers of the frames, and what is said around them."""
    for i, moment in enumerate(script.moments):
        picture.text(left + 52 * i + 24, 62, str(moment.frame_idx), size=12.5, at="middle")
        words = [text.content for text in moment.spans]
        for k, said in enumerate(reversed(words)):
            picture.text(left + 52 * i + 24, 40 - 15 * k, said, size=11, at="middle")
        if moment.before:
            said = moment.before[0].content
            picture.text(left + 52 * i - 2, 40 if not words else 25, f"“{said}”", size=11, at="end")


def draw_masks(script: Script, sequence: TokenSequence) -> Picture:
    """Frames to act at and frames to leave, of both heads; and what sub-sampling keeps of them."""
    picture = Picture(840, 312, "Frame masks, and negative-frame sub-sampling")
    _frame_heads(picture, script)
    picture.text(178, 62, "frame", size=12.5, at="end")
    _frame_row(picture, 76, "speak", sequence.speak_labels.tolist())
    _frame_row(picture, 108, "update", sequence.dst_update_labels.tolist())
    y = 160
    for epoch in range(3):
        decisions = sample_decisions(
            sequence, rho=0.4, turn_frames=None, seed=1, epoch=epoch, record_id=MAKE_TEA.id
        )
        places = sequence.decision_positions
        labels = (
            decisions.pos_frame_mask[places].long()
            - (~decisions.pos_frame_mask[places] & ~decisions.neg_frame_mask[places]).long()
        )
        _frame_row(picture, y, f"speak, rho = 0.4, epoch {epoch}", labels.tolist())
        y += 32
    picture.legend(y + 28, [
        (ORANGE, "pos: its span follows"), (BLUE, "neg: it does not"),
        ("none", "neither: no loss here"),
    ])  # fmt: skip
    picture.height = y + 44
    return picture


def draw_turns(script: Script, sequence: TokenSequence) -> Picture:
    """Where turns end, for two settings, and the two ways through the model."""
    picture = Picture(840, 368, "Turns of the per-turn objective")
    _frame_heads(picture, script)
    picture.text(178, 62, "frame", size=12.5, at="end")
    y = 76
    for turn_frames in (2, 4):
        ends = turn_ends(sequence, turn_frames).tolist()
        labels = [int(label) if end else -1
                  for label, end in zip(sequence.speak_labels, ends, strict=True)]  # fmt: skip
        _frame_row(picture, y, f"speak, turn_frames = {turn_frames}", labels)
        start = 0
        for i, end in enumerate(ends):
            if end:
                left, right = 190 + 52 * start, 190 + 52 * i + 48
                picture.line([(left, y + 30), (left, y + 36), (right, y + 36), (right, y + 30)])
                start = i + 1
        y += 56
    picture.legend(y + 10, [
        (ORANGE, "a turn that ends with words"), (BLUE, "one that ends without words"),
        ("none", "inside of a turn: no decision"),
    ], x=190)  # fmt: skip
    y += 32
    ends = [i for i, end in enumerate(turn_ends(sequence, 4).tolist()) if end]
    picture.text(178, y + 14, "turns = shared", size=12.5, at="end")
    picture.box(190, y, 620, 20, PALE)
    for i in ends:
        picture.dot(190 + 52 * i + 24, y + 10, ORANGE)
    y += 34
    picture.text(178, y + 14, "turns = single", size=12.5, at="end")
    for i in ends[:5]:
        picture.box(190, y, 52 * i + 36, 12, PALE)
        picture.dot(190 + 52 * i + 24, y + 6, ORANGE, 4)
        y += 17
    picture.text(190, y + 16, "The same decisions: a row for each, or one row for all.", size=12.5)
    picture.height = y + 32
    return picture


SILENT_PROBS = (0.1, 0.1, 0.2, 0.1, 0.1, 0.8, 0.2, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1)


def draw_lookahead() -> Picture:
    """Steps of the engine on one stream: blocks watched ahead, cut at the decision that fires."""
    picture = Picture(840, 330, "The engine watches blocks of frames ahead")
    policy, left, block = DecisionPolicy(), 130, 8
    picture.text(left - 12, 62, "P(speak)", size=12.5, at="end")
    for i, prob in enumerate(SILENT_PROBS):
        height = 44 * prob
        picture.box(left + 42 * i + 9, 66 - height, 18, height, ORANGE if prob >= 0.5 else BLUE)
        picture.text(left + 42 * i + 18, 82, str(i), size=12, at="middle")
    picture.line([(left, 44), (left + 42 * len(SILENT_PROBS), 44)], dash=True)
    picture.text(left + 42 * len(SILENT_PROBS) + 4, 48, "θ", size=12.5)
    frame, step, y = 0, 1, 98
    while frame < len(SILENT_PROBS):
        last = min(frame + block, len(SILENT_PROBS))
        picture.text(left - 12, y + 17, f"forward {step}", size=12.5, at="end")
        fired = next((i for i in range(frame, last) if policy.says(SILENT_PROBS[i], 0.5)), None)
        for i in range(frame, last):
            kept = fired is None or i <= fired
            picture.box(left + 42 * i, y, 38, 24, (ORANGE if i == fired else PALE) if kept else
                        "none", text="frame", size=10.5, stroke="none" if kept else GREY,
                        dash=not kept)  # fmt: skip
        frame, step, y = (last if fired is None else fired + 1), step + 1, y + 32
        if fired is not None:
            picture.text(left - 12, y + 17, "then", size=12.5, at="end")
            picture.box(left + 42 * fired, y, 106, 24, GREEN, text="words, one by one", size=10.5)
            y += 32
    picture.legend(y + 24, [
        (PALE, "watched as in silence, kept"), (ORANGE, "the first decision that fires"),
        ("none", "taken back, watched again"), (GREEN, "written"),
    ])  # fmt: skip
    picture.height = y + 40
    return picture


def draw_contexts(chat: Chat, script: Script, sequence: TokenSequence) -> Picture:
    """What every context strategy leaves of a full context, as the code cuts it."""
    picture = Picture(840, 340, "Context strategies: what is left of a full context")
    ids = sequence.input_ids.tolist()
    first = ids.index(chat.image_id)
    prefix = len(chat.bos_ids) + next(
        i for i, token in enumerate(ids[len(chat.bos_ids):]) if token == chat.end_of_turn_id
    ) + 1  # fmt: skip
    places = sequence.decision_positions.tolist()
    starts = [prefix, *(place - K + 1 for place in places)]
    length, scale = len(ids), 400 / len(ids)
    state = {"S1": StepState.COMPLETED, "S2": StepState.IN_PROGRESS}

    def bar(x: float, y: float, begin: int, end: int) -> None:
        for name, a, b, fill in (
            ("prefix", 0, prefix, GREY),
            ("", prefix, first, PALE),
            ("", first, length, PALE),
        ):
            a, b = max(a, begin), min(b, end)
            if a < b:
                picture.box(x + (a - begin) * scale, y, (b - a) * scale, 26, fill, text=name)
        for place in places:
            if begin <= place < end:
                at = x + (place - begin + 0.5) * scale
                picture.line([(at, y + 4), (at, y + 22)])

    y = 30.0
    picture.text(170, y + 18, "full", size=12.5, at="end", bold=True)
    bar(182, y, 0, length)
    picture.text(182, y + 42, "a stroke is a frame; words lie between them", size=12)
    y += 70
    for strategy in Strategy:
        config = StreamConfig(
            strategy=strategy, window_tokens=40, max_summary_tokens=16, max_context=length + 200,
            reserve=100,
        )  # fmt: skip
        picture.text(170, y + 18, strategy.value, size=12.5, at="end", bold=True)
        if strategy is Strategy.NONE:
            picture.text(182, y + 18, "such a stream is refused before it starts", size=12.5)
            y += 42
            continue
        manager = ContextManager(chat, script, config, num_tokens_per_img=K, name=MAKE_TEA.id)
        cut = manager.cut(state=state, knowledge="", summary=SUMMARY, starts=starts, length=length)
        x = 182.0
        for begin, end in cut.keep:
            bar(x, y, begin, end)
            x += (end - begin) * scale
        if cut.feed:
            width = len(cut.feed) * scale
            words = {
                Strategy.DROP_ALL: ("prefix", "the prefix as it was, and nothing else"),
                Strategy.SUMMARIZE: ("prefix + summary", "and a summary that the model wrote"),
                Strategy.DST_REFRESH: (
                    "prefix + state",
                    "the steps and their state, as it was tracked",
                ),
            }[strategy]
            picture.box(x, y, width, 26, ORANGE if strategy is not Strategy.DROP_ALL else GREY,
                        text=words[0], size=11.5)  # fmt: skip
            picture.text(x + width + 10, y + 18, words[1], size=12.5)
        else:
            picture.text(x + 10, y + 18, "the prefix and the latest tokens, closed up", size=12.5)
        y += 42
    picture.height = y + 4
    return picture


def draw_all() -> dict[str, str]:
    """Every picture by the name of its file."""
    chat, script = make_chat(), read_script(MAKE_TEA)
    sequence = build_sequence(script, chat, num_tokens_per_img=K, max_seq_len=4096)
    pictures = {
        "sequence": draw_sequence(chat, script, sequence),
        "masks": draw_masks(script, sequence),
        "turns": draw_turns(script, sequence),
        "lookahead": draw_lookahead(),
        "contexts": draw_contexts(chat, script, sequence),
    }
    return {f"{name}.svg": picture.svg() for name, picture in pictures.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in draw_all().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
