"""Words as the Penn Treebank parts them."""

from __future__ import annotations

import pytest

from proassist_lit.metrics.ptb import tokenize


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Cut the carrot.", "cut the carrot"),
        ("the screw.Next, ...", "the screw next"),
        ("Don't stop; it’s fine, let's go", "do n't stop it 's fine let 's go"),
        ("I'd've said you can't, you cannot", "i 'd 've said you ca n't you can not"),
        ("the driver's seat, the wheels' nuts", "the driver 's seat the wheels nuts"),
        ("double-check - at ten o'clock -- now", "double-check at ten o'clock now"),
        ("3.5 cups, 1,000 g, 1/2 at 10:30", "3.5 cups 1,000 g 1/2 at 10:30"),
        ("Take part A. Then b.", "take part a. then b."),
        ("now (about 90°)", "now -lrb- about 90 ° -rrb-"),
        ('“Look” and "see" `it`', "look and see it"),
        ("  ...!?", ""),
    ],
)
def test_words_are_parted_as_by_the_caption_evaluation(text: str, words: str) -> None:
    assert " ".join(tokenize(text)) == words
