"""Spans that are written at a frame, one after the other."""

from __future__ import annotations

from proassist_lit.sequence.chat import Role
from proassist_lit.streaming.writer import Span, Writer

END = 9


def writer(*spans: Span) -> Writer:
    made = Writer(END)
    for span in spans:
        made.add(span)
    return made


def test_spans_are_written_in_turn_to_their_end_or_their_limit() -> None:
    update, words = Span(Role.DST, (1,), max_tokens=5), Span(Role.ASSISTANT, (2,), max_tokens=2)
    pen = writer(update, words)
    assert (pen.span, pen.last) == (update, None)
    assert pen.take(3) is None
    assert pen.last == 3
    assert pen.take(END) == [3]
    assert (pen.span, pen.last, bool(pen)) == (words, None, True)
    assert (pen.take(4), pen.take(5)) == (None, None)
    assert pen.take(6) == [4, 5]  # as many as it may have: what comes next is not of it
    assert not pen
    assert writer(words).take(END) == []


def test_a_copy_goes_on_by_itself() -> None:
    pen = writer(Span(Role.ASSISTANT, (2,), max_tokens=3), Span(Role.DST, (1,), max_tokens=3))
    pen.take(4)
    other = pen.copy()
    assert (other.take(5), other.take(END)) == (None, [4, 5])
    other.add(Span(Role.ASSISTANT, (2,), max_tokens=1))
    assert pen.last == 4
    assert pen.take(END) == [4]
    assert pen.take(END) == []
    assert not pen
    assert other
