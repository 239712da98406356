"""Chat formats as tables, and the one formatter that training and streaming both use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from proassist_lit.errors import ConfigError


class Role(StrEnum):
    """Who a piece of text is from."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    DST = "dst"


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How a conversation is written. Every piece is tokenized alone.

    Attributes:
        name: name in the configuration.
        bos: opens every cache; empty for none.
        openings: text before the content, for every role.
        end_of_turn: ends every turn; what the model learns to write when it has finished. Empty
            for the tokenizer's own end of sequence.
        after_turn: rest of the closing, fed by builder and session alike, never learnt.
        image: placeholder of one image token.
        separator: written between two adjoining frames; empty for none.
        train_openings: whether the openings of the assistant's spans are learnt.
        bare: roles whose turns are their content alone, without opening and closing.
        overview_first: the steps stand before the prompt (see ``system_turn.system_text``).
        special_tokens: tokens that the tokenizer must treat as one.
    """

    name: str
    bos: str
    openings: Mapping[Role, str]
    end_of_turn: str
    after_turn: str
    image: str = "<image>"
    separator: str = ""
    train_openings: bool = True
    bare: frozenset[Role] = frozenset()
    overview_first: bool = False
    special_tokens: tuple[str, ...] = ()


def _headers(template: str, **names: str) -> dict[Role, str]:
    return {role: template.format(names.get(role.value, role.value)) for role in Role}


FORMATS = {
    "compact": ChatFormat(
        name="compact",
        bos="<|begin|>",
        openings={role: f"<|{role.value}|>" for role in Role},
        end_of_turn="<|end|>",
        after_turn="",
        train_openings=False,
        special_tokens=("<|begin|>", *(f"<|{role.value}|>" for role in Role), "<|end|>"),
    ),
    "chatml": ChatFormat(
        name="chatml",
        bos="",
        openings=_headers("<|im_start|>{}\n"),
        end_of_turn="<|im_end|>",
        after_turn="\n",
        special_tokens=("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": ChatFormat(
        name="llama3",
        bos="<|begin_of_text|>",
        openings=_headers("<|start_header_id|>{}<|end_header_id|>\n\n"),
        end_of_turn="<|eot_id|>",
        after_turn="",
        special_tokens=(
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
    ),
    "gemma": ChatFormat(
        name="gemma",
        bos="<bos>",
        # Gemma has no system role: instructions are the user's.
        openings=_headers("<start_of_turn>{}\n", system="user", assistant="model"),
        end_of_turn="<end_of_turn>",
        after_turn="\n",
        special_tokens=("<bos>", "<start_of_turn>", "<end_of_turn>"),
    ),
    "dst_ext": ChatFormat(
        name="dst_ext",
        bos="",
        openings={
            Role.SYSTEM: "",
            Role.USER: "User: ",  # the extension leaves out what the user says
            Role.ASSISTANT: "[ASST]",
            Role.DST: "[DST]",
        },
        end_of_turn="",
        after_turn="",
        train_openings=False,
        bare=frozenset({Role.SYSTEM}),
        overview_first=True,
        special_tokens=("[DST]", "[ASST]"),
    ),
}


def chat_format(name: str, separator: str = "") -> ChatFormat:
    """Look up a chat format.

    Args:
        name: name of the table.
        separator: text between two adjoining frames, empty for none; ``EOS`` is the end of turn.

    Raises:
        ConfigError: no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"model.chat is {name!r}; known are {', '.join(sorted(FORMATS))}.")
    return replace(FORMATS[name], separator=separator)


class Chat:
    """Writes turns as token ids.

    Args:
        chat_format: the table.
        tokenizer: Hugging Face tokenizer; the image token and the format's special tokens must be
            in its vocabulary as single tokens.

    Attributes:
        end_of_turn: text that ends every turn.
        separator: text between two adjoining frames, empty for none.

    Raises:
        ConfigError: a special token is not one token of the tokenizer, or the format leaves the end
            of turns to the tokenizer, which has none.
    """

    def __init__(self, chat_format: ChatFormat, tokenizer: Any) -> None:
        self.format = chat_format
        self.tokenizer = tokenizer
        self.end_of_turn = _end_of_turn(chat_format, tokenizer)
        separator = chat_format.separator
        self.separator = self.end_of_turn if separator == "EOS" else separator
        self.image_id = self._single(chat_format.image)
        self.end_of_turn_id = self._single(self.end_of_turn)
        self.bos_ids = self._ids(chat_format.bos)
        self.after_turn_ids = self._ids(chat_format.after_turn)
        self.separator_ids = self._ids(self.separator)
        self._openings = {role: self._ids(text) for role, text in chat_format.openings.items()}
        for token in chat_format.special_tokens:
            self._single(token)

    @property
    def silent_id(self) -> int:
        """The token that means silence where no head decides: separator, or end of turn."""
        return (self.separator_ids or [self.end_of_turn_id])[0]

    def encode(self, text: str) -> list[int]:
        """Token ids of what people say: a special token in it is spelt out, never obeyed."""
        return self._ids(text.strip(), split_special_tokens=True)

    def decode(self, ids: list[int]) -> str:
        """Text of generated tokens, without special tokens and outer spaces."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def opening_ids(self, role: Role) -> list[int]:
        """Token ids before the content of a turn of ``role``."""
        return self._openings[role]

    def turn_ids(self, role: Role, content: str) -> list[int]:
        """Token ids of a whole turn: opening, content, end of turn, rest of the closing."""
        content_ids = self.encode(content)
        if role in self.format.bare:
            return content_ids
        return [
            *self.opening_ids(role),
            *content_ids,
            self.end_of_turn_id,
            *self.after_turn_ids,
        ]

    def _ids(self, text: str, *, split_special_tokens: bool = False) -> list[int]:
        if not text:
            return []
        return list(
            self.tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=split_special_tokens
            )
        )

    def _single(self, token: str) -> int:
        ids = self._ids(token)
        if len(ids) != 1:
            raise ConfigError(
                f"model.chat {self.format.name!r}: {token!r} is {len(ids)} tokens of the "
                "tokenizer, not one; add it as a special token, or choose the chat format that "
                "belongs to the model."
            )
        return ids[0]


def _end_of_turn(chat_format: ChatFormat, tokenizer: Any) -> str:
    if chat_format.end_of_turn:
        return chat_format.end_of_turn
    if tokenizer.eos_token is None:  # as text it would be the word None
        raise ConfigError(
            f"model.chat {chat_format.name!r}: the tokenizer has no token that ends turns; set its "
            "eos_token, or choose a chat format that brings its own."
        )
    return str(tokenizer.eos_token)
