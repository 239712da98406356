"""What is written at a frame: spans, one after the other, token by token."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from proassist_lit.sequence.chat import Role


@dataclass(frozen=True)
class Span:
    """A span that is being written, or waits for it.

    Attributes:
        role: whose it is.
        opening: token ids that are fed before its first token is asked for.
        max_tokens: after so many it ends, whatever is asked for next.
        is_summary: whether it is what a context begins with anew.
    """

    role: Role
    opening: tuple[int, ...]
    max_tokens: int
    is_summary: bool = False


class Writer:
    """The spans of a frame that are not written yet; the first of them may be under way.

    Args:
        end_of_turn_id: the token that ends a span.
    """

    def __init__(self, end_of_turn_id: int) -> None:
        self._end_of_turn_id = end_of_turn_id
        self._spans: deque[Span] = deque()
        self._written: list[int] = []  # of the first span

    def copy(self) -> Writer:
        """One that goes on from here by itself."""
        other = Writer(self._end_of_turn_id)
        other._spans, other._written = deque(self._spans), list(self._written)
        return other

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def span(self) -> Span:
        """The span that is under way, or comes next."""
        return self._spans[0]

    @property
    def last(self) -> int | None:
        """The token of it that was written last, None before the first."""
        return self._written[-1] if self._written else None

    def add(self, span: Span) -> None:
        """Let a span be written behind the others."""
        self._spans.append(span)

    def take(self, token: int) -> list[int] | None:
        """Write ``token``, or end the span: then its token ids are returned."""
        if token != self._end_of_turn_id and len(self._written) < self.span.max_tokens:
            self._written.append(token)
            return None
        written, self._written = self._written, []
        self._spans.popleft()
        return written
