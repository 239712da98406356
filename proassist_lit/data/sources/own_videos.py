"""Videos of one's own: what a spreadsheet says of them becomes conversation records.

- *Plan.* The steps of a video are its rows in their order, so ``S3`` is its third row with a step,
  whenever it was done. A step without times was left out.
- *Words.* Where the spreadsheet holds words of a video, its conversation is these words and no
  others. Elsewhere it is what an ideal assistant would have said, with a user who asks more or
  less: one conversation for each kind of user in train, one for a video in val and test.
- *Length.* A video is as long as its features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from proassist_lit.data.arrow_features import find_features
from proassist_lit.data.conversation import Conversation
from proassist_lit.data.dialogue import write_dialogues
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.feature_content import FORMATS, read_notes
from proassist_lit.data.recorded_dialogue import Utterance, write_recorded_dialogue
from proassist_lit.data.records import parse_record, record_to_json
from proassist_lit.data.seeding import stable_rng
from proassist_lit.data.sources.captaincook4d_descriptions import parse_description
from proassist_lit.data.sources.spreadsheet import Spreadsheet, StepRow, VideoRows
from proassist_lit.data.timeline import Step, Timeline
from proassist_lit.errors import FeatureError, RecordError
from proassist_lit.types import SPLITS
from proassist_lit.vision.encoder import GRID_SIDES

_ROUNDING_S = 1.0
"""People round: a step or word may be so much after the end of its video."""


@dataclass(frozen=True)
class EncodedVideo:
    """What the features of a video say of it.

    Attributes:
        name: of its file below the folder of features, without suffix.
        num_frames: frames.
        fps: frames per second.
        num_tokens_per_img: K, with all grids that are there.
    """

    name: str
    num_frames: int
    fps: float
    num_tokens_per_img: int

    @property
    def last_s(self) -> float:
        """Time of the last frame, seconds."""
        return (self.num_frames - 1) / self.fps


def read_encoded(folder: Path, name: str, where: str) -> EncodedVideo:
    """Look at the features of a video.

    Args:
        folder: of the encoder, as ``proassist-lit encode`` wrote it.
        name: of the video's file below its folder, without suffix.
        where: row that names it, for messages.

    Raises:
        RecordError: there are none.
        FeatureError: they are damaged, or do not say how many frames a second they hold.
    """
    own, path = name, _feature_file(folder, name)
    if not path.exists():
        there = sorted(
            p.relative_to(folder).with_suffix("").as_posix()
            for kind in FORMATS
            for p in folder.rglob(f"*.{kind}")
        )
        # A Mac decomposes letters in the names of files, into e and its accent.
        own = next((n for n in there if normalize("NFC", n) == normalize("NFC", name)), "")
        if not own:
            raise RecordError(
                f"{where}: video {name!r} has no features in {folder}, which holds "
                f"{', '.join(there[:6]) or 'none'}{', ...' if there[6:] else ''}; correct its "
                "name, or encode it (proassist-lit encode)."
            )
        path = _feature_file(folder, own)
    notes = read_notes(path)
    try:
        made = json.loads(notes["made"])
        num_tokens = sum(GRID_SIDES[grid] ** 2 for grid in made["grids"])
        return EncodedVideo(own, int(made["num_frames"]), float(made["fps"]), num_tokens)
    except (KeyError, ValueError, TypeError) as error:
        raise FeatureError(
            f"{where}: {path} does not say how many frames it holds, and how many a second; make "
            "it by proassist-lit encode."
        ) from error


def _feature_file(folder: Path, name: str) -> Path:
    return find_features(folder.joinpath(*PurePosixPath(f"{name}.arrow").parts))


def make_timeline(video: VideoRows, encoded: EncodedVideo, dataset: str, task: str) -> Timeline:
    """What happened in a video.

    Args:
        video: its rows.
        encoded: its length.
        dataset: name of the data set.
        task: its goal, where its rows do not say it.

    Raises:
        RecordError: a step ends after the video, or nobody says what the goal is.
    """
    if not (video.task or task):
        raise RecordError(
            f"{video.where}: video {video.name!r} has no task; write the goal of the user into a "
            "column 'task' (make a cup of tea), or give it for all videos by --task."
        )
    steps = [_make_step(f"S{i}", row, encoded.last_s) for i, row in enumerate(video.steps, start=1)]
    return Timeline(
        dataset=dataset,
        video_uid=video_uid(video.name),
        task=_uncapitalized(video.task or task),
        duration_s=encoded.last_s,
        steps=tuple(steps),
    )


def make_conversations(
    timeline: Timeline,
    video: VideoRows,
    encoded: EncodedVideo,
    config: DialogueConfig,
    *,
    seed: int,
) -> list[Conversation]:
    """The conversations over one video: that of its words, or one for each type of user.

    Args:
        timeline: what happened in it.
        video: its rows.
        encoded: its features.
        config: how conversations are written; its ``fps`` is that of the features.
        seed: seed of the wording.

    Raises:
        RecordError: words come after the end of the video.
    """
    if video.said:
        said = [
            Utterance(
                time_s=_within(row.time_s, timeline.duration_s, row.where, "has words"),
                words=row.words,
                by_user=row.by_user,
            )
            for row in video.said
        ]
        conversations = [write_recorded_dialogue(timeline, config, said, seed=seed)]
    else:
        conversations = write_dialogues([timeline], config, seed=seed, every_type=True)
    return [
        replace(
            conversation,
            frames_file=f"frames/{encoded.name}.arrow",
            num_tokens_per_img=encoded.num_tokens_per_img,
            metadata={**conversation.metadata, "rendered": False},
        )
        for conversation in conversations
    ]


def share_out(sheet: Spreadsheet, *, held_out: float, seed: int) -> dict[str, list[VideoRows]]:
    """Videos by split: as the column ``split`` says, or drawn by lot where it says nothing at all.

    Args:
        sheet: the spreadsheet.
        held_out: share of the videos that is drawn for val, and as many for test; at least one.
        seed: of the lots; videos that are added change those of the others.

    Raises:
        RecordError: some videos have a split and others none, a split stays empty, or there are
            too few videos to share out.
    """
    videos = sheet.videos
    if any(video.split for video in videos):
        for video in videos:
            if not video.split:
                raise RecordError(
                    f"{video.where}: video {video.name!r} has no split, though others have; write "
                    "it in one of its rows, or leave the column empty to have all drawn by lot."
                )
        shared = {split: [v for v in videos if v.split == split] for split in SPLITS}
        if empty := [split for split, some in shared.items() if not some]:
            raise RecordError(
                f"{sheet.path}: no video is of the split {' or '.join(empty)}; write it for one "
                "at least."
            )
        return shared
    num_held_out = max(1, round(held_out * len(videos)))
    if len(videos) <= 2 * num_held_out:
        raise RecordError(
            f"{sheet.path}: {len(videos)} videos cannot be shared out, with {num_held_out} each "
            "for val and test and the rest for train; add some, or lower --held-out."
        )
    order = stable_rng("split", seed).permutation(len(videos))
    lots = {
        "val": order[:num_held_out],
        "test": order[num_held_out : 2 * num_held_out],
        "train": order[2 * num_held_out :],
    }
    return {split: [videos[i] for i in sorted(lots[split])] for split in SPLITS}


def prepare(
    sheet: Spreadsheet,
    features: Path,
    *,
    dataset: str,
    task: str,
    held_out: float,
    config: DialogueConfig,
    seed: int,
) -> dict[str, list[Conversation]]:
    """Conversations by split.

    Args:
        sheet: the spreadsheet.
        features: of its videos, in the folder of one encoder.
        dataset: name of the data set.
        task: goal of videos whose rows do not say it.
        held_out: as of ``share_out``.
        config: how conversations are written, but for ``fps``, which the features say.
        seed: of wordings and lots.

    Raises:
        RecordError: the spreadsheet does not fit the videos; every fault, a line each.
        FeatureError: features cannot be read, or do not say how they were made.
    """
    shared = share_out(sheet, held_out=held_out, seed=seed)
    split_of = {video.name: split for split, videos in shared.items() for video in videos}
    faults: list[RecordError] = []
    made: dict[str, list[Conversation]] = {split: [] for split in shared}
    names: dict[str, str] = {}
    types, num_written = config.user_types, 0
    for video in sheet.videos:
        uid, split = video_uid(video.name), split_of[video.name]
        try:
            if (other := names.setdefault(uid, video.name)) != video.name:
                raise RecordError(
                    f"{video.where}: videos {other!r} and {video.name!r} would both be called "
                    f"{uid!r}; rename one of them."
                )
            encoded = read_encoded(features, video.name, video.where)
            timeline = make_timeline(video, encoded, dataset, task)
            own = replace(config, fps=encoded.fps)
            if split != "train":  # one conversation a video; the types of users take turns
                own = replace(own, user_types=[types[num_written % len(types)]])
                num_written += not video.said
            for conversation in make_conversations(timeline, video, encoded, own, seed=seed):
                # now, as one that is refused when it is written leaves some splits new, some old
                parse_record(record_to_json(conversation), where=video.where)
                made[split].append(conversation)
        except RecordError as fault:
            faults.append(fault)
    if faults:
        raise RecordError("\n".join(map(str, faults)))
    return made


def video_uid(name: str) -> str:
    """Name of a recording: that of its file, or ``monday_tea_1`` for ``monday/tea_1``."""
    return name.replace("/", "_")


def _make_step(step_id: str, row: StepRow, last_s: float) -> Step:
    name = _uncapitalized(row.name.rstrip(" ."))
    parsed = parse_description(f"-{name}")  # no word of it stands for a verb before a dash
    said = parsed.item in name  # brackets within it are left out: "the green (fresh) beans"
    return Step(
        id=step_id,
        name=name,
        verb=parsed.verb,
        item=parsed.item if said else parsed.item.split()[-1],
        tool=parsed.tool,
        start_s=None if row.start_s is None else _within(row.start_s, last_s, row.where, "starts"),
        end_s=None if row.end_s is None else _within(row.end_s, last_s, row.where, "ends"),
    )


def _within(time_s: float, last_s: float, where: str, what: str) -> float:
    """A time that is not after the last frame, which it may be by a rounding."""
    if time_s > last_s + _ROUNDING_S:
        raise RecordError(
            f"{where}: {what} at {time_s:g} s, but the last frame of the video is at {last_s:g} s; "
            "correct the time, which counts from the start of the video, or the name of the video."
        )
    return min(time_s, last_s)


def _uncapitalized(text: str) -> str:
    """``Fill the kettle`` as it stands in a sentence; ``USB stick`` and ``I`` stay."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
