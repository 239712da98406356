"""``proassist-lit inspect``: one training example, with the loss that each token bears."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.terminal import (
    add_token_options,
    check_tokens,
    console,
    count,
    track,
    write_page,
)
from proassist_lit.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from proassist_lit.data.conversation import Conversation
    from proassist_lit.sequence.chat import Chat
    from proassist_lit.sequence.rules import SequenceRules


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "inspect",
        help="show one training example: what the model sees, which loss is where",
        description="Show one training example as its tokens are: text, frames, and the loss that "
        "each bears.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=".jsonl or .json file, or folder")
    parser.add_argument(
        "--index", type=int, default=0, metavar="N", help="which record, from 0 (default: 0)"
    )
    add_token_options(parser)
    parser.add_argument(
        "--max-seq-len",
        type=count,
        metavar="T",
        help="longest sequence, tokens (default: as in training)",
    )
    parser.add_argument(
        "--splitting",
        choices=("cut", "drop_all", "dst_refresh", "summarize"),
        help="how a longer record is split into parts (default: as in training)",
    )
    parser.add_argument(
        "--part",
        type=count,
        default=1,
        metavar="N",
        help="which part of a record that is split, from 1 (default: 1)",
    )
    parser.add_argument(
        "--objective",
        choices=("per_token", "per_turn", "token_prob"),
        help="where decisions are trained (default: as in training)",
    )
    parser.add_argument(
        "--compat",
        choices=("none", "proassist"),
        default="none",
        help="whose rules make the sequence; with proassist and --chat dst_ext those of its DST "
        "extension (default: none, ours)",
    )
    parser.add_argument(
        "--no-dst",
        action="store_true",
        help="the sequence of a model without a state (model.dst=false): no steps, no updates",
    )
    parser.add_argument(
        "--rho",
        type=float,
        metavar="SHARE",
        help="share of silent decisions trained on (default: as in training)",
    )
    parser.add_argument(
        "--turn-frames",
        type=int,
        metavar="N",
        help="per_turn: silent frames of a turn (default: as in training)",
    )
    parser.add_argument(
        "--epoch",
        type=int,
        default=0,
        metavar="N",
        help="epoch whose sub-sampling is shown (default: 0)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of the run (default: 1)"
    )
    parser.set_defaults(run_command=inspect)


def inspect(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.data.config import DataConfig
    from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
    from proassist_lit.report.data_chat import choose_chat
    from proassist_lit.report.data_files import find_data_files, read_data_file
    from proassist_lit.report.example_report import example_page, terminal_view
    from proassist_lit.report.example_view import view_example
    from proassist_lit.sequence.chat import Chat
    from proassist_lit.sequence.rules import rules_for

    check_tokens(arguments.tokens)
    chosen = {"rho": arguments.rho, "turn_frames": arguments.turn_frames}
    if arguments.objective:
        chosen["kind"] = ObjectiveKind(arguments.objective)
    objective = ObjectiveConfig(**{k: v for k, v in chosen.items() if v is not None})
    paths = find_data_files([arguments.data]).paths
    conversations: list[Conversation] = []
    follows_reference = arguments.compat != "none"
    as_released = not rules_for(follows_reference, arguments.chat or "").write_empty_utterances
    for path in track(paths, "Reading", many=8):
        file = read_data_file(path, as_released=as_released)
        if file.faults:
            raise file.faults[0]
        conversations += file.conversations
    if not 0 <= arguments.index < len(conversations):
        raise ConfigError(
            f"--index {arguments.index}: {arguments.data} holds {len(conversations)} records; "
            f"give 0 to {len(conversations) - 1}."
        )
    conversation = conversations[arguments.index]
    chat, tokens = choose_chat(conversations, arguments.tokenizer, arguments.chat)
    num_tokens_per_img = arguments.tokens or conversation.num_tokens_per_img
    max_seq_len = arguments.max_seq_len or DataConfig().max_seq_len
    rules = rules_for(follows_reference, chat.format.name, dst=not arguments.no_dst)
    chat = Chat(rules.written_in(chat.format), chat.tokenizer)
    parts = _split(conversation, chat, arguments.splitting, num_tokens_per_img, max_seq_len, rules)
    if arguments.part > len(parts):
        raise ConfigError(
            f"--part {arguments.part}: the parts of record {arguments.index} are 1 to "
            f"{len(parts)}; give one of these."
        )
    view = view_example(
        parts[arguments.part - 1],
        chat,
        num_tokens_per_img=num_tokens_per_img,
        max_seq_len=max_seq_len,
        rho=objective.rho,
        turn_frames=objective.sampled_turn_frames,
        seed=arguments.seed,
        epoch=arguments.epoch,
        rules=rules,
    )
    how = f"objective {objective.kind.value}, rho {objective.rho:g}, epoch {arguments.epoch}"
    if objective.sampled_turn_frames:
        how += f", turns of {objective.turn_frames} silent frames"
    if arguments.compat != "none":
        how += f", rules of {arguments.compat}"
    if len(parts) > 1:
        how += f"; part {arguments.part} of {len(parts)} that training splits the record into"
    notes = (how, tokens)
    console().print(terminal_view(view, notes))
    if arguments.html:
        write_page(arguments.html, example_page(view, notes))
    return 0


def _split(
    conversation: Conversation,
    chat: Chat,
    method: str | None,
    num_tokens_per_img: int,
    max_seq_len: int,
    rules: SequenceRules,
) -> list[Conversation]:
    """The parts of a record that training sees: itself, if it fits.

    Raises:
        RecordError: there are none; the message says why.
    """
    from proassist_lit.data.config import DataConfig
    from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
    from proassist_lit.sequence.splitting import split_conversation

    splitting = SplitConfig(method=SplitMethod(method)) if method else SplitConfig()
    parts = split_conversation(
        conversation, chat, splitting, num_tokens_per_img=num_tokens_per_img,
        max_seq_len=max_seq_len, seed=DataConfig().seed, rules=rules,
    )  # fmt: skip
    if not parts:
        raise RecordError(
            f"{conversation.source}: is longer than {max_seq_len} tokens, and no assistant speaks "
            "in it, so that training leaves it out; --splitting cut shows its beginning."
        )
    return parts
