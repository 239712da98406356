"""``proassist-lit prepare``: from a spreadsheet of steps to conversation records."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from proassist_lit.errors import ConfigError

EPILOG = """\
columns:
  video, step, start, end   must be there: the file, what is done, and when (83.5 or 1:23.5)
  said, speaker             words at the time 'start', with a step or alone in their row, and who
                            said them: assistant (default) or user
  task                      the goal of the video: make a cup of tea
  split                     train, val or test, in one row of every video; drawn by lot without it
  The steps of a video are its rows, in the order of the plan; one without times was left out.
  Where the spreadsheet holds words of a video, nothing else is said in it. For other videos the
  words of an ideal assistant are written, and those of users who ask more or less.
"""


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "prepare",
        help="make conversation records of a spreadsheet of steps",
        description="Make conversation records of a spreadsheet (CSV) that says which step is "
        "done when in which video, for train.py data=own. The videos are encoded first "
        "(proassist-lit encode), into FOLDER/features/ENCODER. FOLDER/prepared is written anew.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spreadsheet", type=Path, metavar="CSV", help="the spreadsheet")
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="of the data set, with features/ in it; its name is that of the data set, and the "
        "folder above it is data.root of a run",
    )
    parser.add_argument(
        "--encoder",
        metavar="NAME",
        help="folder below FOLDER/features (default: the only one there)",
    )
    parser.add_argument(
        "--task",
        default="",
        metavar="GOAL",
        help="goal of videos whose rows say none, as of 'I want to ...': make a cup of tea",
    )
    parser.add_argument(
        "--users",
        default="no_talk,talk_some,talk_more",
        metavar="NAMES",
        help="how much the users of invented words ask; train has a conversation of each for every "
        "video (default: no_talk,talk_some,talk_more)",
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="share of the videos drawn for val, and as many for test (default: 0.15)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of wordings and lots (default: 1)"
    )
    parser.set_defaults(run_command=prepare)


def prepare(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.data.dialogue_config import DialogueConfig, UserType
    from proassist_lit.data.records import write_records
    from proassist_lit.data.sources import own_videos
    from proassist_lit.data.sources.spreadsheet import read_spreadsheet

    if not 0 < arguments.held_out < 0.5:
        raise ConfigError(
            f"--held-out {arguments.held_out:g}: must be between 0 and 0.5, a share of the videos "
            "for val and as many for test; 0.15 is usual."
        )
    names = arguments.users.split(",")
    if unknown := [name for name in names if name not in list(UserType)]:
        raise ConfigError(
            f"--users {arguments.users}: {unknown[0]!r} is no kind of user; name some of "
            f"{','.join(UserType)}, with commas between them."
        )
    sheet = read_spreadsheet(arguments.spreadsheet)
    folder: Path = arguments.folder
    features = _choose_features(folder, arguments.encoder)
    made = own_videos.prepare(
        sheet,
        features,
        dataset=os.path.basename(os.path.abspath(folder)),  # a link's own name: a run looks there
        task=arguments.task.strip(),
        held_out=arguments.held_out,
        config=DialogueConfig(user_types=[UserType(name) for name in dict.fromkeys(names)]),
        seed=arguments.seed,
    )
    if sheet.ignored:
        sys.stderr.write(f"{sheet.path}: columns left out: {', '.join(sheet.ignored)}\n")
    for split, conversations in made.items():
        path = folder / "prepared" / f"{split}.jsonl"
        write_records(path, conversations)
        num_videos = len({conversation.video_uid for conversation in conversations})
        sys.stdout.write(
            f"wrote {path}: {len(conversations)} conversations over {num_videos} videos\n"
        )
    return 0


def _choose_features(folder: Path, encoder: str | None) -> Path:
    parent = folder / "features"
    there = (
        sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    )
    if encoder is None and len(there) == 1:
        return parent / there[0]
    if encoder in there:
        return parent / str(encoder)
    if not there:
        raise ConfigError(
            f"{parent}: holds no features; encode the videos first: proassist-lit encode VIDEOS "
            f"--encoder NAME --out {parent}/NAME."
        )
    raise ConfigError(
        f"--encoder {encoder or 'is missing'}: {parent} holds {', '.join(there)}; name one of them."
    )
