"""Words as the Penn Treebank parts them, and as COCO's caption evaluation counts them.

That evaluation, which ProAssist uses, calls a Java program (Stanford's PTB tokenizer 3.4.1, lower
case) and drops punctuation. Here are its rules for what assistants say: contractions are parted
(``do n't``, ``let 's``), words with hyphens and slashes are not, and brackets count as words, since
it looks for them in capitals (``-LRB-``) when all is lower case. Smileys, ``y'all`` and rarer
abbreviations than those named here come out otherwise.

Source: Marcus et al. 1993; arXiv:1504.00325.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_FRACTIONS = str.maketrans({"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "’": "'"})

_BEGINS = (
    "Now|Then|You|The|It|In|But|He|She|We|They|This|That|There|When|If|As|So|At|What|After|Once"
)
"""Words that begin a sentence for sure: a letter before them was not abbreviated."""

_PARTS = re.compile(
    rf"""
      https?://\S+ | [\w.+-]+@\w+(?:\.\w+)+
    | (?i: mr | mrs | ms | dr | prof | st | jr | sr | vs | etc ) \.  # with their dot
    | (?i: no ) \. (?= \s*\d )
    | (?: [^\W\d_] \. ){{2,}} (?!\w)                                # u.s.  a.m.
    | \b [^\W\d_] \. (?! \w | \s+ (?: {_BEGINS} ) \b )             # a.
    | \d+ (?: [.,:/] \d+ )+ (?: \w* (?: - \w+ )+ | th | rd | nd | st )?  # 1/2-inch  1/8th
    | (?<! [\w.] ) [+-] \d+ (?: [.,:/] \d+ )*
    | \. \d+                                                        # .5
    | [^\W\d]\w* (?:                                                 # word
        ' (?=[^\W\d]) \w+ | - \w+                                   # o'clock  don't  double-check
      | (?<=[^\W\d]) / (?=[^\W\d]) \w+ | \. (?=[^\W\d]) \w+        # and/or  here.Then
      )*
    | \d\w* (?: ' (?=[^\W\d]) \w+ | - \w+ )*                      # 20th-century
    | ' (?i: s | re | ve | ll | d | m ) \b                          # it 's, behind something else
    | [?!]{{2,}}
    | [^\s.,:;?!'"`“”‘’…–—-]                                        # °  %  (
    """,
    re.VERBOSE,
)

_CONTRACTION = re.compile(r"(.+)(n't|'(?:s|re|ve|ll|d|m))")

_TWO = {
    word: [word[:3], word[3:]]
    for word in ("cannot", "gonna", "gotta", "lemme", "gimme", "wanna")
}  # fmt: skip


def tokenize(text: str) -> list[str]:
    """Lower-cased words of a text without punctuation."""
    return list(_words(text.translate(_FRACTIONS)))


def _words(text: str) -> Iterator[str]:
    for part in map(str.lower, _PARTS.findall(text)):
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
