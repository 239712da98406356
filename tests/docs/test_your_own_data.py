"""docs/your-own-data.md, followed word for word on drawn videos."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import distributions
from pathlib import Path

import av
import pytest

from proassist_lit.cli import run_app
from proassist_lit.commands.main import _parser, main
from proassist_lit.config import RunConfig
from proassist_lit.data.render import Renderer
from proassist_lit.data.sources.spreadsheet import read_spreadsheet
from proassist_lit.data.timeline import Activity, ActivityKind, Step, Timeline
from proassist_lit.lit.run import train
from proassist_lit.metrics.match_windows import DEFAULT_WINDOW, MatchWindow
from tests.vision.clips import make_clip

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/your-own-data.md").read_text(encoding="utf-8")
CONF = ROOT / "conf"
FPS, SECONDS = 5, 9

SHORT = re.search(r"fits together, append `([^`]+)`", GUIDE)
"""What the guide says may be appended to see that everything fits together."""


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks of the guide, each with the remark before it, if there is one."""
    fence = rf"(?:<!-- ([^\n]+) -->\n)?```{language}\n(.*?)```"
    return re.findall(fence, GUIDE, re.DOTALL)


def commands(block: str) -> list[list[str]]:
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def draw(name: str, steps: list[tuple[str, float | None, float | None]]) -> None:
    """A drawn recording of these steps, five pictures a second, as a video."""
    things = ("carrots", "leeks", "plums")
    done = [(i, name, start, end) for i, (name, start, end) in enumerate(steps) if start and end]
    timeline = Timeline(
        dataset="drawn", video_uid=name, task="t", duration_s=SECONDS,
        steps=tuple(
            Step(id=f"S{i + 1}", name=step, verb="wash", item=things[i % 3], start_s=start,
                 end_s=end)
            for i, (step, start, end) in enumerate(steps)
        ),
        activities=tuple(
            Activity(kind=ActivityKind.WORK, start_s=start, end_s=end, step_id=f"S{i + 1}",
                     item=things[i % 3], progress=(0.0, 1.0))
            for i, _, start, end in done
        ),
    )  # fmt: skip
    renderer, ticks = Renderer(timeline), range(FPS * SECONDS)
    pictures = [renderer.frame(k, FPS) for k in ticks]
    make_clip(Path(name), ticks, time_base=Fraction(1, FPS), pictures=pictures, size=(64, 64),
              sound_s=2.0)  # fmt: skip


def make_videos() -> None:
    """The folder of videos and the spreadsheet that the guide begins with."""
    header = "video,step,start,end\n"
    assert header in blocks("csv")[0][1]
    rows = io.StringIO()
    written = csv.writer(rows)
    for number in range(1, 6):
        name, shift = f"tea_{number:02}.mp4", number / 10
        steps = [
            ("Fill the kettle with water", 1 + shift, 3.0),
            ("Warm the pot", None, None) if number == 1 else ("Warm the pot", 3.5, 5.0),
            ("Pour the tea into the cup", 5.5 + shift, 8.0),
        ]
        draw(f"own/tea/videos/{name}", steps)
        written.writerows([name, step, start, end] for step, start, end in steps)
    draw("new.mp4", [("Fill the kettle with water", 2.0, 4.0)])
    Path("own/tea/steps.csv").write_text(header + rows.getvalue())


def is_installed(requirement: str) -> bool:
    names = {d.metadata["Name"].lower().replace("_", "-") for d in distributions()}
    return re.split(r"[\[=<>]", requirement)[0].replace("_", "-").lower() in names


@dataclass
class Shell:
    """Runs the commands of the guide in this process, from its folder."""

    patch: pytest.MonkeyPatch

    def run(self, words: list[str]) -> None:
        match words:
            case ["pip", "install", *requirements]:
                for requirement in requirements:
                    if requirement[0] not in "-.":
                        self.installed(requirement)
            case ["proassist-lit", *arguments]:
                assert main(arguments) == 0, arguments
            case ["python", "train.py", *overrides]:
                assert SHORT
                self.train([*overrides, *SHORT[1].split(), "logger.wandb=disabled"])
            case _:
                raise AssertionError(f"the guide gives an unknown command: {words}")

    def installed(self, requirement: str) -> None:
        if not is_installed(requirement):
            pytest.skip(f"pip install {requirement}")

    def train(self, overrides: list[str]) -> None:
        self.patch.setattr(sys, "argv", ["train.py", *overrides])
        run_app(train, conf_dir=CONF)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.road
@pytest.mark.filterwarnings("ignore")  # of Lightning and W&B: not tested here
def test_the_guide_leads_from_videos_to_an_assistant_that_watches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_videos()
    [(_, task)] = blocks("json")
    Path("tea.json").write_text(task)
    shell = Shell(monkeypatch)
    for remark, block in blocks("bash"):
        for words in commands(block) if not remark else []:
            shell.run(words)

    said = capsys.readouterr().out
    assert "encoded 5 videos, 90 frames" in said  # two of the five pictures a second
    assert "train.jsonl: 9 conversations over 3 videos" in said
    assert "wrote own/data.html" in said
    assert "wrote own/example.html" in said
    run = Path("outputs/latest")
    assert run.resolve().parent == folder / "outputs/tea"
    assert "<html" in (run / "report.html").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"val/utterance_f1", "test/utterance_f1", "test/dst_update_f1"} <= set(metrics)
    assert re.search(
        r"tea_02\.mp4, [89]\.\d s, 2 frames a second; task: tea_02_0_\w+, 3 steps", said
    )
    assert re.search(r"0:03\.0  user       What comes first\?\n", said)
    assert "  ○ S3 pour the tea into the cup: not started\n" in said
    assert re.search(r"new\.mp4, [89]\.\d s, 2 frames a second; task: tea, 3 steps\n", said)
    names = {path.name for path in Path("watched").iterdir()}
    kinds = ("srt", "vtt", "mp4", "json")
    assert names == {f"{name}.{kind}" for name in ("tea_02", "new") for kind in kinds}
    assert len(json.loads(Path("watched/tea_02.json").read_text())) == 18
    assert "What comes first?" in said
    assert Path("new.srt").exists()
    with av.open("watched/new.mp4") as film:
        assert [track.type for track in film.streams] == ["video"]
    about = json.loads(Path("tea-assistant/proassist_lit.json").read_text())
    assert (about["fps"], about["features"]["encoder"]) == (2.0, "efficientnet-lite0")


def test_every_other_command_of_the_guide_is_understood(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[RunConfig] = []
    remarked = [words for remark, block in blocks("bash") if remark for words in commands(block)]
    for words in remarked:
        if words[0] == "proassist-lit":
            _parser().parse_args(words[1:])
        elif words[:2] == ["python", "train.py"]:
            monkeypatch.setattr(sys, "argv", words[1:])
            run_app(lambda config, _: configs.append(config), conf_dir=CONF)
    assert [words[0] for words in remarked] == ["pip", "python", "pip", "proassist-lit"]
    assert configs[0].model.backbone == "smollm2"
    for setting in re.findall(r"`(?:python )?train\.py \.\.\. ([^`]+)`", GUIDE):
        words = ["train.py", "data=own", "data.root=x", *shlex.split(setting)]
        monkeypatch.setattr(sys, "argv", words)
        run_app(lambda config, _: configs.append(config), conf_dir=CONF)
    encoded, long, timed = configs[1:]
    assert encoded.data.encoder == "siglip"
    assert long.stream.max_context - long.stream.reserve == long.data.max_seq_len
    assert timed.evaluation.match_windows() == {"tea": MatchWindow(-1.5, 3)}


def test_numbers_of_the_guide_are_the_defaults() -> None:
    config = RunConfig()
    for number in (config.data.max_seq_len, config.stream.max_context - config.stream.reserve):
        assert f" {number} tokens" in GUIDE
    assert f"within {DEFAULT_WINDOW.end_s} s" in GUIDE
    assert DEFAULT_WINDOW.start_s == -DEFAULT_WINDOW.end_s


def test_the_spreadsheets_of_the_guide_are_read(tmp_path: Path) -> None:
    first, second = (block for _, block in blocks("csv"))
    (tmp_path / "steps.csv").write_text(first)
    one, two = read_spreadsheet(tmp_path / "steps.csv").videos
    assert [(step.start_s, step.end_s) for step in one.steps] == [
        (2.5, 6.0), (None, None), (8.0, 15.5),
    ]  # fmt: skip
    assert two.name == "tea_02"
    (tmp_path / "steps.csv").write_text(second)
    (three,) = read_spreadsheet(tmp_path / "steps.csv").videos
    assert [row.by_user for row in three.said] == [False, True, False]
    columns = re.findall(r"^\| `([\w, ]+)` \|", GUIDE, re.MULTILINE)
    named = {name for cell in columns for name in cell.split(", ")}
    from proassist_lit.data.sources.spreadsheet import OPTIONAL, REQUIRED

    assert named == {*REQUIRED, *OPTIONAL}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)[^)]*\)", GUIDE))
def test_links_of_the_guide_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
