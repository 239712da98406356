"""Words as the Penn Treebank parts them, and as COCO's caption evaluation counts them.

That evaluation, which ProAssist uses, calls a Java program (Stanford's PTB tokenizer, lower case)
and drops punctuation. Here are its rules for what assistants say: contractions are parted
(``do n't``, ``let 's``), words with hyphens are not, and brackets count as words, since it looks
for them in capitals (``-LRB-``) when all is lower case. Abbreviations of more than one letter
(``approx.``) lose their dot, addresses and smileys are taken apart: there it is not the same.

Source: Marcus et al. 1993; arXiv:1504.00325.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_PARTS = re.compile(
    r"""
      (?: [^\W\d_] \. )+ (?!\w)            # a.   u.s.
    | \d+ (?: [.,:/] \d+ )+                # 3.5  1,000  10:30  1/2
    | \w+ (?: ['-] \w+ )*                  # word  double-check  o'clock  don't
    | ' (?: s | re | ve | ll | d | m ) \b  # it 's, behind something else
    | [^\s.,:;?!'"`“”‘’…–—-]               # °  %  (
    """,
    re.VERBOSE,
)

_CONTRACTION = re.compile(r"(.+)(n't|'(?:s|re|ve|ll|d|m))")

_TWO = {
    word: [word[:at], word[at:]]
    for word, at in {
        "cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3
    }.items()
}  # fmt: skip


def tokenize(text: str) -> list[str]:
    """Lower-cased words of a text without punctuation."""
    return list(_words(text.lower().replace("’", "'")))


def _words(text: str) -> Iterator[str]:
    for part in _PARTS.findall(text):
        if part in _BRACKETS:
            yield _BRACKETS[part]
        elif part in _TWO:
            yield from _TWO[part]
        elif contraction := _CONTRACTION.fullmatch(part):
            word, rest = contraction.groups()
            yield from _words(word)  # may hold another: i'd've
            yield rest
        else:
            yield part
