"""What judging took: tokens, and money where the prices are known."""

from __future__ import annotations

from dataclasses import dataclass

from proassist_lit.errors import ConfigError
from proassist_lit.judge.answer import Answer


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices per million tokens, in any currency.

    Attributes:
        prompt: of what is asked.
        completion: of what is answered.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and self.completion >= 0):
            raise ConfigError(
                f"--price-in {self.prompt}, --price-out {self.completion}: prices per million "
                "tokens must be at least 0."
            )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of so many tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of a number of answers.

    Attributes:
        num_answers: how many.
        num_unknown: how many of them the server told no tokens of.
        prompt_tokens: tokens of the requests, as far as known.
        completion_tokens: tokens of the answers, as far as known.
    """

    num_answers: int = 0
    num_unknown: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, answer: Answer) -> Usage:
        """This and one more."""
        is_unknown = answer.prompt_tokens is None or answer.completion_tokens is None
        return Usage(
            num_answers=self.num_answers + 1,
            num_unknown=self.num_unknown + is_unknown,
            prompt_tokens=self.prompt_tokens + (answer.prompt_tokens or 0),
            completion_tokens=self.completion_tokens + (answer.completion_tokens or 0),
        )

    def describe(self, prices: Prices | None) -> str:
        """In words; the cost if there are ``prices``."""
        said = f"{self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
        if prices is not None:
            said += f", cost {prices.cost(self.prompt_tokens, self.completion_tokens):.4f}"
        if self.num_unknown:
            said += f" (of {self.num_unknown} answers the server told no tokens)"
        return said
