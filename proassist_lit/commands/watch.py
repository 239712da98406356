"""``proassist-lit watch``: a trained assistant watches a video file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proassist_lit.commands.assistant import add_assistant_options, load_run
from proassist_lit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.text import Text

    from proassist_lit.commands.assistant import LoadedRun
    from proassist_lit.live.task import Task
    from proassist_lit.live.watching import Watched
    from proassist_lit.types import FrameOutput

KINDS = {
    "srt": "subtitles as SubRip",
    "vtt": "subtitles as WebVTT",
    "mp4": "the video with the words and the checklist drawn on it",
    "json": "every frame, as in a run's streams/*.json",
}


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, the subparsers of the program."""
    parser = commands.add_parser(
        "watch",
        help="let a trained assistant watch a video file",
        description="Let a trained assistant watch a video file, and print what it says and how "
        "far the task is. Ctrl-C ends it and keeps what was answered. Exit code 0: watched to its "
        "end; 2: something given is wrong, or the video is damaged (what was answered before is "
        "kept); 130: interrupted.",
    )
    add_assistant_options(parser)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video file")
    parser.add_argument(
        "--say",
        action="append",
        default=[],
        metavar="'TIME:WORDS'",
        help="what the user says, and when, in seconds or m:ss: '12.5:How long should I boil it?'; "
        "may be repeated",
    )
    parser.add_argument(
        "--task",
        metavar="NAME_OR_JSON",
        help="prompt and steps: those of a recording of the run's data, by its name, or of a JSON "
        'file {"prompt": ..., "knowledge": ..., "steps": [...]} (default: the recording that is '
        "called like the video; without one, the prompt alone)",
    )
    parser.add_argument(
        "--user",
        choices=("silent", "recorded"),
        default="silent",
        help="recorded: beside --say, the user says what they say in the recording of --task",
    )
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="as a camera would show it: frames that come while another one is being answered are "
        "dropped and counted",
    )
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S", help="second to begin at (default: 0)"
    )
    parser.add_argument(
        "--end", type=float, metavar="S", help="second to end at (default: the end)"
    )
    files = parser.add_argument_group(
        "files", "Named after the video. With --out alone, all of them are written."
    )
    files.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for these files (default: the current one)"
    )
    for kind, what in KINDS.items():
        files.add_argument(f"--{kind}", action="store_true", help=f"write {what}")
    files.add_argument(
        "--font", type=Path, metavar="FILE", help="font of the mp4, for other than Latin letters"
    )
    parser.set_defaults(run_command=watch)


def watch(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from proassist_lit.commands.terminal import console
    from proassist_lit.data.timeline import event_frame
    from proassist_lit.live.user_words import heard_at, parse_saying
    from proassist_lit.live.watching import RealTime, watch_video
    from proassist_lit.vision.video import read_info

    sayings = [parse_saying(text) for text in arguments.say]
    if not 0 <= arguments.start < (float("inf") if arguments.end is None else arguments.end):
        raise ConfigError(
            f"--start {arguments.start:g} --end {arguments.end}: give seconds from the start of "
            "the video, the earlier one first."
        )
    info = read_info(arguments.video)
    if info.duration_s is not None and arguments.start >= info.duration_s:
        raise ConfigError(
            f"--start {arguments.start:g}: {arguments.video.name} is {info.duration_s:.1f} s long; "
            "begin earlier."
        )
    paths = _files(arguments)
    loaded = load_run(arguments)
    assistant = loaded.assistant
    task = _choose_task(arguments, loaded)
    arrivals = heard_at(
        sayings,
        assistant.fps,
        task.arrivals(
            first_frame=event_frame(arguments.start, assistant.fps),
            recorded=arguments.user == "recorded",
        ),
    )
    terminal = console()
    length = "" if info.duration_s is None else f", {info.duration_s:.1f} s"
    _print(terminal, f"{arguments.video.name}{length}, {assistant.fps:g} frames a second; "
           f"task: {task.name}, {len(task.steps)} steps")  # fmt: skip
    printer = _Printer(terminal, task)
    watched = watch_video(
        assistant,
        task,
        arguments.video,
        arrivals,
        clock=RealTime(assistant.fps) if arguments.realtime else None,
        start_s=arguments.start,
        end_s=arguments.end,
        on_frame=printer.frame,
    )
    _summarize(terminal, watched)
    for text in watched.unheard:
        sys.stderr.write(f"not heard, the video was over: {text.content}\n")
    if watched.frames:
        _write_files(arguments, watched, paths)
        for path in paths.values():
            _print(terminal, f"wrote {path}")
    if watched.interrupted:
        sys.stderr.write("interrupted\n")
        return 130
    if watched.error is not None:
        raise watched.error
    return 0


def _choose_task(arguments: argparse.Namespace, loaded: LoadedRun) -> Task:
    from proassist_lit.errors import RecordError

    if arguments.task is not None:
        return loaded.task(arguments.task)
    try:
        return loaded.task(arguments.video.stem)
    except RecordError:
        sys.stderr.write(
            "no --task, and no recording is called like the video: the assistant knows no steps\n"
        )
        return loaded.no_task()


class _Printer:
    """Prints what happens at a frame, if anything does."""

    def __init__(self, terminal: Console, task: Task) -> None:
        self._terminal = terminal
        self._names = {step.id: step.name for step in task.steps}
        self._state = dict(task.initial_state)

    def frame(self, frame: FrameOutput) -> None:
        from rich.text import Text

        for who, style, words in self._happened(frame):
            line = Text(f"{_clock(frame.time_s):>8}  ")
            line.append(f"{who:<9}  ", "dim")
            line.append(" ".join(words.split()), style)
            _print(self._terminal, line)
        self._state = dict(frame.state)

    def _happened(self, frame: FrameOutput) -> list[tuple[str, str, str]]:
        lines = []
        if frame.user_text:
            lines.append(("user", "italic", frame.user_text))
        for step, now in frame.state.items():
            if now is not self._state.get(step):
                words = f"{step} {self._names.get(step, '')}: {now.value.replace('_', ' ')}"
                lines.append(("state", "cyan", words))
        if frame.text:
            lines.append(("assistant", "bold", frame.text))
        if frame.event:
            lines.append(("context", "yellow", frame.event.replace("_", " ")))
        return lines


def _summarize(terminal: Console, watched: Watched) -> None:
    from proassist_lit.types import StepState

    signs = {StepState.NOT_STARTED: "○", StepState.IN_PROGRESS: "◐", StepState.COMPLETED: "●"}
    state = watched.frames[-1].state if watched.frames else watched.task.initial_state
    for step in watched.task.steps:
        now = state[step.id]
        _print(terminal, f"  {signs[now]} {step.id} {step.name}: {now.value.replace('_', ' ')}")
    spoken = sum(bool(frame.text) for frame in watched.frames)
    parts = [f"{len(watched.frames)} frames watched", f"{spoken} times spoken"]
    if watched.num_dropped:
        parts.append(f"{watched.num_dropped} frames dropped, their time had passed")
    if times := sorted(watched.answer_s):
        median, late = (times[int(share * (len(times) - 1))] for share in (0.5, 0.95))
        parts.append(f"an answer took {1000 * median:.1f} ms (p50), {1000 * late:.1f} ms (p95)")
    _print(terminal, "; ".join(parts))


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    """Files to write, by kind; what would go wrong only after the video was watched is told now."""
    from proassist_lit.commands.terminal import ready_folder
    from proassist_lit.live.drawing import load_font

    asked = [kind for kind in KINDS if getattr(arguments, kind)]
    kinds = asked or (list(KINDS) if arguments.out is not None else [])
    paths = {k: (arguments.out or Path()) / f"{arguments.video.stem}.{k}" for k in kinds}
    given = [arguments.video]
    if arguments.task is not None and Path(arguments.task).is_file():
        given.append(Path(arguments.task))
    for path in filter(Path.exists, paths.values()):
        for file in filter(path.samefile, given):
            raise ConfigError(f"{file}: would be written over; choose another --out.")
    load_font(arguments.font)
    if paths:
        ready_folder("--out", arguments.out or Path())
    return paths


def _write_files(
    arguments: argparse.Namespace, watched: Watched, paths: Mapping[str, Path]
) -> None:
    """Write what was asked for, each file whole or not at all."""
    from proassist_lit.atomic import write_text
    from proassist_lit.commands.terminal import writing_to
    from proassist_lit.live.annotated import write_annotated
    from proassist_lit.live.subtitles import make_cues, to_srt, to_vtt
    from proassist_lit.streaming.stream_file import write_stream

    cues = make_cues(watched.frames)
    with writing_to("--out", arguments.out or Path()):
        if "srt" in paths:
            write_text(paths["srt"], to_srt(cues))
        if "vtt" in paths:
            write_text(paths["vtt"], to_vtt(cues))
        if "json" in paths:
            write_stream(paths["json"], watched.transcript(arguments.video.stem))
    if "mp4" in paths:
        steps = [(step.id, step.name) for step in watched.task.steps]
        write_annotated(
            paths["mp4"], arguments.video, watched.frames, steps, fps=watched.fps,
            font=arguments.font,
        )  # fmt: skip


def _print(terminal: Console, text: str | Text) -> None:
    """Words of a model or a user are no markup."""
    terminal.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s, 1), 60)
    return f"{int(minutes)}:{seconds:04.1f}"
