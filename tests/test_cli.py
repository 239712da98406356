"""What a command line gives to the job: its configuration and its directory."""

from __future__ import annotations

import errno
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from proassist_lit.config import Compat, RunConfig
from proassist_lit.config_schema import read_config
from proassist_lit.going_on import go_on_command, override
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.run_directory import RunDirectory
from proassist_lit.streaming.config import Strategy
from tests.app import App


def test_job_gets_config_and_directory_with_the_resolved_config(app: App) -> None:
    overrides = ["+experiment=per_token", "compat=proassist", "stream=proassist"]
    assert app(*overrides, "seed=3", "name=x-${seed}") == 0
    [(config, run_dir)] = app.jobs
    assert (config.name, config.seed, config.compat) == ("x-3", 3, Compat.PROASSIST)
    assert config.objective.kind is ObjectiveKind.PER_TOKEN
    assert re.fullmatch(r"outputs/x-3/[\d_-]+-[a-z0-9]{5}", str(run_dir.relative_to(Path.cwd())))
    written = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (written["name"], written["seed"]) == ("x-3", 3)
    assert written["objective"]["kind"] == "per_token"
    assert read_config(RunConfig, run_dir / "config.yaml") == config


def test_every_kind_of_value_arrives(app: App) -> None:
    assert (
        app(
            "trainer.optimizer.lr=1e-5",
            "++trainer.max_steps='7'",
            "model.dst=no",
            "stream.theta_speak=0.25",
            "stream.strategy=drop_all",
            "data.dialogue.user_types=[no_talk]",
            "data=captaincook4d",
            "data.root='a b,c'",
            "trainer={max_epochs:2}",
            "~logger",
        )
        == 0
    )
    [(config, run_dir)] = app.jobs
    assert config.trainer.optimizer.lr == 1e-5
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (7, 2)
    assert config.model.dst is False
    assert (config.stream.theta_speak, config.stream.strategy) == (0.25, Strategy.DROP_ALL)
    assert [u.value for u in config.data.dialogue.user_types] == ["no_talk"]
    assert (config.data.source, config.data.root) == ("captaincook4d", "a b,c")
    assert read_config(RunConfig, run_dir / "config.yaml") == config


@pytest.mark.parametrize(
    ("arguments", "windows"),
    [
        (["evaluation.windows={garden: [-2, 4]}"], {"garden": [-2.0, 4.0]}),
        (["evaluation.windows.garden=[-2,4]"], {"garden": [-2.0, 4.0]}),
        (["+evaluation.windows.garden=[-2,4]"], {"garden": [-2.0, 4.0]}),
        (["+experiment=mine"], {"kitchen": [-1.5, 3.0]}),
        (
            ["+experiment=mine", "evaluation.windows={garden: [-2, 4]}"],
            {"kitchen": [-1.5, 3.0], "garden": [-2.0, 4.0]},
        ),
    ],
)
def test_match_windows_are_set_as_documented(
    app: App, arguments: list[str], windows: dict[str, list[float]]
) -> None:
    (app.conf_dir / "experiment/mine.yaml").write_text(
        "# @package _global_\nevaluation:\n  windows: {kitchen: [-1.5, 3]}\n"
    )
    assert app(*arguments) == 0, app.err
    [(config, run_dir)] = app.jobs
    assert config.evaluation.windows == windows
    assert read_config(RunConfig, run_dir / "config.yaml") == config


@pytest.mark.road
def test_two_runs_never_share_a_directory(app: App) -> None:
    # without the time, as if both had begun in the same second
    place = "hydra.run.dir=runs/${short_id:}/${short_id:}"
    assert app(place) == app(place) == 0
    first, second = (run_dir for _, run_dir in app.jobs)
    assert first != second
    assert first.name == first.parent.name  # one id a job


def test_given_directory_is_used_again(app: App) -> None:
    assert app("hydra.run.dir=here/a", "seed=2") == 0
    assert app("hydra.run.dir=here/a", "seed=3") == 0
    assert {run_dir for _, run_dir in app.jobs} == {Path.cwd() / "here/a"}
    assert read_config(RunConfig, Path("here/a/config.yaml")).seed == 3


@pytest.mark.road
def test_run_is_not_trained_over(app: App) -> None:
    assert app("hydra.run.dir=here", "seed=3") == 0
    Path("here/checkpoints").mkdir()
    for name in ("here/checkpoints/last.ckpt", "here/checkpoints/best.ckpt", "other.ckpt"):
        Path(name).write_text("of seed 3")
    before = Path("here/config.yaml").stat().st_mtime_ns
    for resume in ("none", "other.ckpt"):
        assert app("hydra.run.dir=here", "seed=4", f"resume={resume}") == 2
        assert app.said().startswith(f"error: {Path.cwd() / 'here'}: holds a run already, which ")
        assert f"resume={resume} would write over; add resume=auto" in app.err
    assert len(app.jobs) == 1
    assert Path("here/config.yaml").stat().st_mtime_ns == before  # not even written and put back
    for resume in ("auto", "here/checkpoints/best.ckpt"):
        assert app("hydra.run.dir=here", f"resume={resume}") == 0
    assert app("hydra.run.dir=elsewhere", "resume=here/checkpoints/last.ckpt") == 0


def checkpoint_in(folder: str) -> None:
    Path(folder, "checkpoints").mkdir()
    Path(folder, "checkpoints/last.ckpt").write_text("a state")


def test_a_run_does_not_go_on_as_another_experiment(app: App) -> None:
    assert app("+experiment=per_token", "hydra.run.dir=here") == 0
    checkpoint_in("here")
    before = Path("here/config.yaml").read_text()
    assert app("hydra.run.dir=here", "resume=auto") == 2
    assert "here: holds a run named per_token, and this one is " in app.err
    assert len(app.jobs) == 1
    assert Path("here/config.yaml").read_text() == before


@pytest.mark.road
def test_a_run_that_goes_on_with_other_settings_says_so(app: App) -> None:
    started = ("+experiment=per_token", "hydra.run.dir=here")
    assert app(*started) == 0
    checkpoint_in("here")
    assert app(*started, "resume=auto") == 0
    assert app.err == ""
    assert app(*started, "resume=auto", "seed=3", "objective.rho=0.5") == 0
    assert app.err == (
        f"{Path.cwd() / 'here'}: goes on with seed 3, not 1, objective.rho 0.5, not 1.0 as it "
        "began.\n"
    )
    many = ("seed=4", "objective.rho=0.1", *(f"stream.{n}=9" for n in LIMITS), "model.dst=false")
    assert app(*started, "resume=auto", *many) == 0
    assert "and 2 more as it began" in app.err


@pytest.mark.road
def test_a_run_of_another_version_goes_on(app: App) -> None:
    assert app("hydra.run.dir=here") == 0
    checkpoint_in("here")
    with Path("here/config.yaml").open("a") as file:
        file.write("of_old: 3\n")
    assert app("hydra.run.dir=here", "resume=auto") == 0
    assert re.search(r"config.yaml.*of_old.* goes on with is not compared with it\.\n$", app.err)


LIMITS = ("max_new_tokens", "max_dst_tokens", "window_tokens", "max_summary_tokens")


@pytest.mark.road
def test_the_command_that_goes_on_is_whole(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    noted = app.job

    def job(config: RunConfig, run_dir: Path) -> float:
        said.append(go_on_command(run_dir))
        return noted(config, run_dir)

    app.job = job  # type: ignore[method-assign]
    given = ("+experiment=per_token", "data.root='a b'")
    assert app(*given, "++resume=none", "hydra.run.dir=a dir") == 0
    folder = Path.cwd() / "a dir"
    command = shlex.split(said[0])
    assert command == ["python", "train.py", *given, f"hydra.run.dir={folder}", "resume=auto"]
    checkpoint_in("a dir")
    assert app(*command[2:]) == 0
    assert shlex.split(said[1]) == command
    assert app.err == ""
    own = Path("own").absolute()
    (own / "experiment").mkdir(parents=True)
    (own / "experiment/mine.yaml").write_text("# @package _global_\nname: mine\n")
    for option in (f"--config-dir={own}", f"hydra.searchpath=[file://{own}]"):
        assert app(option, "+experiment=mine", f"hydra.run.dir={option[2:5]}") == 0, app.err
        assert shlex.split(said[-1])[2:4] == [option, "+experiment=mine"]
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    assert go_on_command(folder) == f"'hydra.run.dir={folder}' resume=auto"  # by no command line


@pytest.mark.road
def test_two_processes_never_train_in_one_directory(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app("hydra.run.dir=here", "seed=3") == 0
    monkeypatch.setattr("proassist_lit.cli._OTHER_RUN_S", 0.01)
    with FileLock("here/.lock"):
        assert app("hydra.run.dir=here", "seed=4", "resume=auto") == 2
    waiting, refusal = app.err.splitlines()
    assert waiting.startswith(f"{Path.cwd() / 'here'}: another process trains here; waiting")
    assert refusal.startswith(f"error: {Path.cwd() / 'here'}: another process trains here")
    assert "choose another hydra.run.dir (if none does, delete" in refusal
    assert len(app.jobs) == 1
    assert read_config(RunConfig, Path("here/config.yaml")).seed == 3
    assert app("hydra.run.dir=here", "seed=4", "resume=auto") == 0
    app.error = KeyboardInterrupt()  # frees it, too
    assert app("hydra.run.dir=here", "seed=1", "resume=auto") == 130
    app.error = None
    assert app("hydra.run.dir=here", "seed=1", "resume=auto") == 0


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError("soft")])
def test_where_nothing_can_be_locked_runs_begin_all_the_same(
    app: App, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert app("hydra.run.dir=here") == 0
    assert app.err.startswith(f"{Path.cwd() / 'here'}: cannot be locked (")
    assert len(app.jobs) == 1


def test_what_a_run_begins_from_is_not_the_link_that_it_moves(app: App) -> None:
    assert app("hydra.run.dir=outputs/mine") == 0
    RunDirectory(Path("outputs/mine")).point_latest(Path("outputs"))
    begins = ("resume=outputs/latest/checkpoints/last.ckpt", "model.init_from=outputs/latest/out")
    assert app("hydra.run.dir=outputs/next", *begins) == 0, app.err
    config, run_dir = app.jobs[-1]
    assert config.resume == "outputs/mine/checkpoints/last.ckpt"
    assert config.model.init_from == "outputs/mine/out"
    assert read_config(RunConfig, run_dir / "config.yaml") == config


@pytest.mark.road
def test_a_run_that_goes_on_begins_from_what_the_link_led_to(app: App) -> None:
    given = ("hydra.run.dir=outputs/next", "model.init_from=outputs/latest/out", "resume=auto")
    for name in ("mine", "next"):
        assert app(f"hydra.run.dir=outputs/{name}") == 0
    RunDirectory(Path("outputs/mine")).point_latest(Path("outputs"))
    assert app(*given) == 0
    checkpoint_in("outputs/next")
    RunDirectory(Path("outputs/next")).point_latest(Path("outputs"))
    assert app(*given) == 0, app.err
    assert app.err == ""
    assert app.jobs[-1][0].model.init_from == "outputs/mine/out"


@pytest.mark.road
@pytest.mark.parametrize("key", ["resume", "model.init_from", "+model.init_from"])
def test_jobs_of_a_multirun_do_not_begin_from_the_link_that_they_move(app: App, key: str) -> None:
    assert app("hydra.run.dir=outputs/mine") == 0
    RunDirectory(Path("outputs/mine")).point_latest(Path("outputs"))
    for mode in ("-m", "hydra.mode=MULTIRUN"):
        assert app(mode, "seed=1,2", f"{key}='outputs/latest/out'") == 2
        assert f"{key}='outputs/latest/out': each job moves that link when it begins; " in app.err
        assert f"{key.lstrip('+')}=outputs/mine/out." in app.err
    assert len(app.jobs) == 1


def test_the_link_to_the_latest_run_is_followed_at_the_start(app: App) -> None:
    assert app("hydra.run.dir=outputs/mine") == 0
    RunDirectory(Path("outputs/mine")).point_latest(Path("outputs"))
    assert app("hydra.run.dir=outputs/latest", "resume=auto") == 0
    assert [run_dir for _, run_dir in app.jobs] == [Path.cwd() / "outputs/mine"] * 2


def test_config_is_put_back_if_the_run_does_not_go_on_from_its_checkpoint(app: App) -> None:
    assert app("hydra.run.dir=here", "seed=3") == 0
    Path("here/checkpoints").mkdir()
    Path("here/checkpoints/last.ckpt").write_text("of seed 3")
    app.error = KeyboardInterrupt()
    assert app("hydra.run.dir=here", "seed=1", "resume=auto") == 130
    assert read_config(RunConfig, Path("here/config.yaml")).seed == 3


def test_config_dir_adds_experiments(app: App) -> None:
    (app.conf_dir.parent / "own/experiment").mkdir(parents=True)
    mine = app.conf_dir.parent / "own/experiment/mine.yaml"
    mine.write_text("# @package _global_\nname: mine\n")
    assert app("--config-dir", "own", "+experiment=mine") == 0
    assert app(f"hydra.searchpath=[file://{mine.parents[1]}]", "+experiment=mine") == 0
    assert [config.name for config, _ in app.jobs] == ["mine", "mine"]
    mine.write_text("# @package _global_\nnmae: mine\n")
    assert app("--config-dir", "own", "+experiment=mine") == 2
    assert "own/experiment/mine.yaml:2: " in app.said()


@pytest.mark.road
def test_process_of_another_device_shares_the_run(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inherited = {}
    noted = app.job

    def job(config: RunConfig, run_dir: Path) -> float:
        inherited.update(os.environ)
        return noted(config, run_dir)

    app.job = job  # type: ignore[method-assign]
    assert app("seed=4") == 0
    assert "PROASSIST_LIT_RUN_DIR" not in os.environ
    monkeypatch.setenv("PROASSIST_LIT_RUN_DIR", inherited["PROASSIST_LIT_RUN_DIR"])
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert app("seed=5") == 0  # the first process is one of its own
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert app("seed=6", "hydra.run.dir=elsewhere") == 0
    assert app.jobs[2] == app.jobs[0]
    assert app.jobs[1][1] != app.jobs[0][1]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "path", ["/data/runs/a-1.b", "/my (copy)/lr=0.1", "a b", "it's {x}", "a,b", "[1]"]
)
def test_a_path_is_written_as_hydra_reads_it(path: str) -> None:
    (read,) = OverridesParser.create().parse_overrides([override("hydra.run.dir", Path(path))])
    assert (read.key_or_group, read.value()) == ("hydra.run.dir", path)
