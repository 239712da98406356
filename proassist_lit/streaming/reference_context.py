"""What the reference's stepping is made of: settings, a trace, its text, and how it forgets.

Source: ProAssist, arXiv:2506.05904, as released. Ours is ``config``, ``context`` and ``cache``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proassist_lit.errors import ConfigError
from proassist_lit.sequence.chat import Chat, Role
from proassist_lit.streaming.cache import KVCache

STRATEGIES = ("none", "drop_all", "drop_middle", "summarize")
"""What may happen when the cache is nearly full; the names are those of ``config.Strategy``."""


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """How the reference answers streams. Names and defaults are its own, and so is the polarity.

    Attributes:
        strategy: one of ``STRATEGIES``.
        eval_max_seq_len: most tokens in the cache.
        reserved_seq_len: the strategy runs when at most this many tokens are left.
        last_keep_len: tokens of the end that ``drop_middle`` keeps.
        not_talk_threshold: silent iff P(not talk) > this, in [0, 1]; at 0 the model's own next
            token decides. ``diffX``: talk iff P(not talk) fell by more than X since the frame
            before, else as at 0.5.
        use_gt_context: the reference turns make the context in place of what was written.
        max_length: longest utterance, tokens, header and end of turn included; >= 1.
        summary_max_length: longest summary, likewise.
        init_last_not_talk_prob: P(not talk) of the frame before the first, for ``diffX``; None
            for no such frame.
    """

    strategy: str = "drop_all"
    eval_max_seq_len: int = 4096
    reserved_seq_len: int = 128
    last_keep_len: int = 512
    not_talk_threshold: float | str = 0.5
    use_gt_context: bool = False
    max_length: int = 100
    summary_max_length: int = 512
    init_last_not_talk_prob: float | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"ReferenceConfig: strategy is {self.strategy!r}, which the reference does not "
                f"know; choose one of {', '.join(STRATEGIES)}."
            )
        if self.fall is None and not 0.0 <= float(self.not_talk_threshold) <= 1.0:
            raise ConfigError(
                f"ReferenceConfig: not_talk_threshold must be in [0, 1] or 'diffX', got "
                f"{self.not_talk_threshold}."
            )
        for name in ("last_keep_len", "max_length", "summary_max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"ReferenceConfig: {name} must be at least 1, got {getattr(self, name)}."
                )
        if not 0 < self.reserved_seq_len < self.eval_max_seq_len:
            raise ConfigError(
                f"ReferenceConfig: reserved_seq_len {self.reserved_seq_len} must be between 1 and "
                f"eval_max_seq_len {self.eval_max_seq_len}; it is the room for what is said."
            )

    @property
    def limit(self) -> int:
        """Length of the cache at which the strategy runs."""
        return self.eval_max_seq_len - self.reserved_seq_len

    @property
    def fall(self) -> float | None:
        """X of ``diffX``; None for a plain threshold."""
        if not isinstance(self.not_talk_threshold, str):
            return None
        try:
            prefix, number = self.not_talk_threshold[:4], float(self.not_talk_threshold[4:])
        except ValueError:
            prefix, number = "", 0.0
        if prefix != "diff":
            raise ConfigError(
                f"ReferenceConfig: not_talk_threshold is {self.not_talk_threshold!r}; write a "
                "number in [0, 1], or 'diff' and a number, as in 'diff0.1'."
            )
        return number


@dataclass(frozen=True, kw_only=True)
class ReferenceCall:
    """One call of the model's generation: something fed, a decision, perhaps words.

    Attributes:
        input_ids: what was fed; the image tokens are the last.
        not_talk_prob: P(not talk) at the last of them.
        output_ids: what was generated; the silent token alone for silence.
        cache_in: tokens in the cache before.
        cache_out: tokens in the cache after, without words that are dropped at once.
    """

    input_ids: tuple[int, ...]
    not_talk_prob: float
    output_ids: tuple[int, ...]
    cache_in: int
    cache_out: int


@dataclass(frozen=True, kw_only=True)
class ReferenceTrace:
    """What happened inside one step.

    Attributes:
        frame: the call at the frame.
        cache_end: tokens in the cache after the context strategy; 0 when all was dropped.
        init_cache: tokens of the start that ``drop_middle`` keeps; None before there is one.
        event: what was done to the context, if anything.
        summary: the call that wrote a summary, if one did.
        summary_text: the summary.
        next_text: the prompt that the next frame begins with, after a summary.
    """

    frame: ReferenceCall
    cache_end: int
    init_cache: int | None
    event: str | None
    summary: ReferenceCall | None = None
    summary_text: str = ""
    next_text: str = ""


class ReferenceText:
    """Writes turns as the reference does, as one text, and reads generated ones back.

    Args:
        chat: gives the table and the tokenizer. The reference knows Llama 3 alone; with the other
            formats it goes by the same rules.
    """

    def __init__(self, chat: Chat) -> None:
        self._table, self._tokenizer = chat.format, chat.tokenizer
        self._end_of_turn = chat.end_of_turn
        self._marks = [m for m in (self._table.bos, self._table.image, chat.separator) if m]
        # What ends the header of any role, if a special token does; else the assistant's header.
        opening = self._table.openings[Role.ASSISTANT]
        end = opening.rpartition(Role.ASSISTANT.value)[2]
        self._header_end = end if end.strip() in self._table.special_tokens else opening

    def turn(self, role: Role, content: str) -> str:
        """A whole turn."""
        words = content.strip()
        if role in self._table.bare:
            return words
        return self._table.openings[role] + words + self._end_of_turn + self._table.after_turn

    def tokenize(self, text: str) -> list[int]:
        """Token ids; special tokens are obeyed, those that a summary happens to hold, too."""
        if not text:
            return []
        return list(
            self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)
        )

    def clean(self, output_ids: Sequence[int]) -> str:
        """Words of generated tokens: up to the end of turn, behind the first header, no marks.

        Special tokens that are none of these stay in the text.
        """
        text = str(self._tokenizer.decode(list(output_ids), skip_special_tokens=False))
        text = text.split(self._end_of_turn, 1)[0].strip()
        for mark in self._marks:
            text = text.replace(mark, "")
        if self._header_end in text:
            return text.split(self._header_end, 1)[1]
        return "" if text == "." else text


def drop_middle(cache: KVCache, *, start: int, tail: int) -> bool:
    """Keep the first ``start`` and the last ``tail`` tokens of ``cache``; True if any went.

    A cache that is shorter than the tail stays whole, full or not. The tail is cut at a token,
    wherever that is in a frame or a span. Kept keys stay rotated to the positions they had, and
    what is fed next is numbered by the new length: it stands before the tail that it looks at.
    """
    length = len(cache)
    first = max(start, length - tail)
    if first == start:
        return False
    tails = [
        (layer.keys[:, :, first:length].clone(), layer.values[:, :, first:length].clone())
        for layer in cache.layers
    ]
    cache.crop(start)
    for layer, (keys, values) in zip(cache.layers, tails, strict=True):
        layer.update(keys, values)
    return True
