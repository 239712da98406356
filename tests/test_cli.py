from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from proassist_lit.composition import compose
from proassist_lit.config import Compat, RunConfig
from proassist_lit.config_schema import read_config
from proassist_lit.errors import ConfigError, StreamError
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.streaming.config import Strategy
from tests.app import REPO_CONF, App


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


def test_config_is_put_back_if_the_run_does_not_go_on_from_its_checkpoint(app: App) -> None:
    assert app("hydra.run.dir=here", "seed=3") == 0
    Path("here/checkpoints").mkdir()
    Path("here/checkpoints/last.ckpt").write_text("of seed 3")
    app.error = KeyboardInterrupt()
    assert app("hydra.run.dir=here", "seed=1", "resume=auto") == 130
    assert read_config(RunConfig, Path("here/config.yaml")).seed == 3


@pytest.mark.road
def test_multirun_runs_every_combination_and_leaves_a_table(app: App) -> None:
    assert app("-m", "seed=2,3", "+experiment=per_turn,per_token") == 0
    assert [(c.seed, c.objective.kind.value) for c, _ in app.jobs] == [
        (2, "per_turn"), (2, "per_token"), (3, "per_turn"), (3, "per_token"),
    ]  # fmt: skip
    assert len({run_dir for _, run_dir in app.jobs}) == 4
    [sweep] = {run_dir.parent for _, run_dir in app.jobs}
    assert (sweep / "multirun.yaml").exists()
    rows = (sweep / "table.csv").read_text().splitlines()
    assert len(rows) == 5
    assert "seed" in rows[0]
    assert rows[4].startswith("3-per_token-seed3,done")
    assert "| 3-per_token-seed3 |" in (sweep / "table.md").read_text()
    assert "3-per_token-seed3" in (sweep / "table.html").read_text()
    assert app.out.count("1-per_token-seed2") >= 3  # printed after each job that came later


@pytest.mark.road
def test_multirun_table_is_there_before_the_last_job(app: App) -> None:
    sizes = []
    noted = app.job

    def job(config: RunConfig, run_dir: Path) -> float:
        table = run_dir.parent / "table.csv"
        sizes.append(len(table.read_text().splitlines()) if table.exists() else 0)
        return noted(config, run_dir)

    app.job = job  # type: ignore[method-assign]
    assert app("-m", "seed=range(2,5)", "hydra.sweep.dir=sweep") == 0
    assert sizes == [0, 2, 3]
    assert {run_dir.parent for _, run_dir in app.jobs} == {Path.cwd() / "sweep"}


@pytest.mark.road
@pytest.mark.parametrize("values", ["seed=choice(2,3)", "+experiment=glob(per_t*)"])
def test_sweeps_of_other_kinds(app: App, values: str) -> None:
    assert app("-m", values) == 0
    assert len(app.jobs) == 2


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("+experimnt=per_turn", "'experimnt'; the nearest is 'experiment'"),
        ("+foo=1", "'foo'; the nearest is"),
        ("trainer.max_step=3", "'trainer.max_steps'"),
        ("++trainer.max_step=3", "'trainer.max_steps'"),
        ("objective=per_tokn", "'per_tokn'; the nearest is 'per_token'"),
        ("+experiment=per_trn", "'per_trn'; the nearest is 'per_turn'"),
        ("~dat", "'dat'; the nearest is 'data'"),
        ("data.toy.num_trian=3", "'data.toy.num_train'"),
        ("trainer={max_step:3}", "'trainer.max_steps'"),
        ("hydra.rn.dir=x", "'hydra.run'"),
        ("hydra.swep.dir=x", "'hydra.sweep'"),
        ("hydra/lancher=basic", "lancher"),
        ("logger.wandb=ofline", "the nearest is 'offline'"),
        ("trainer.max_steps=abc", "trainer.max_steps must be int"),
        ("trainer.devices=foo", "trainer.devices is 'foo'"),
        ("trainer.precision=b16-mixed", "no such precision; the nearest is 'bf16-mixed'"),
        ("evaluation.windows={a: [-1, x]}", "evaluation.windows.a.1 must be float"),
        ("evaluation.windows.a=[3]", "evaluation.windows.a must be two numbers"),
        ("experiment=per_turn", "write +experiment=per_turn"),
        ("trainer.optimizer.lr=-1", "trainer.optimizer.lr must be > 0"),
        ("trainer.optimizer.lr=nan", "trainer.optimizer.lr must be > 0"),
        ("trainer.optimizer.final_ratio=-1", "trainer.optimizer.final_ratio must be in [0, 1]"),
        ("trainer.optimizer.weight_decay=-1", "trainer.optimizer.weight_decay must be >= 0"),
        ("trainer.optimizer.beta2=1.5", "trainer.optimizer.beta2 must be in [0, 1)"),
        ("name=${nme}", "'nme' not found"),
        ("trainer.devices=${trainer.max_step}", "max_step"),
        ("trainer.max_steps=${name}", "default"),
        ("data.root=???", "data.root"),
        ("seed=1,2", "--multirun"),
        ("seed=interval(1,2)", "seed"),
        ("+trainer.max_steps=3", "'trainer.max_steps'"),
        ("~trainer.max_steps", "trainer.max_steps"),
        ("name=a=b", "name=a=b"),
        ("trainer=null", "name a file"),
        ("--foo", "--foo"),
        ("hydra.run.dir=conf/config.yaml/x", "config.yaml"),
    ],
)
def test_what_a_user_can_cause_ends_in_one_line(app: App, argument: str, said: str) -> None:
    assert app(argument) == 2
    assert said in app.said()
    assert app.jobs == []


@pytest.mark.parametrize(
    "argument",
    ["seed=2,x", "+experiment=per_turn,per_tokn", "+foo=1,2", "+experiment=glob(x*)"],
)
def test_sweep_values_are_checked_before_the_first_job(app: App, argument: str) -> None:
    assert app("-m", argument) == 2
    assert app.said().startswith(f"error: {argument}: ")
    assert app.jobs == []


def test_options_after_the_first_key_are_explained(app: App) -> None:
    assert app("seed=2", "-m", "name=a,b") == 2
    assert "before the first KEY=VALUE" in app.said()


def test_misspelling_in_any_file_stops_every_run(app: App) -> None:
    (app.conf_dir / "trainer/quick.yaml").write_text("max_steps: 5\n\nmax_epoch: 3\n")
    assert app("trainer.max_steps=1") == 2
    assert "conf/trainer/quick.yaml:3: " in app.said()
    assert "'trainer.max_epochs'" in app.err


def test_parameters_of_a_sweep_in_a_file_are_checked_before_the_first_job(app: App) -> None:
    (app.conf_dir / "experiment/sweep.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      +foo: 1,2\n"
    )
    assert app("-m", "+experiment=sweep") == 2
    assert "error: conf/experiment/sweep.yaml:5: +foo=1,2: there is no key" in app.said()
    assert app.jobs == []


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


def test_error_of_the_user_inside_the_job_has_no_traceback(app: App) -> None:
    app.error = StreamError("stream x: is empty; drop it.")
    assert app() == 2
    assert app.said() == "error: stream x: is empty; drop it."


@pytest.mark.parametrize("error", [RuntimeError("bug"), ValueError("bug"), OSError("bug")])
def test_other_errors_of_the_job_keep_their_traceback(app: App, error: Exception) -> None:
    app.error = error
    with pytest.raises(type(error), match="bug") as caught:
        app()
    assert caught.traceback[-1].name == "job"
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_missing_folder_of_the_job_is_no_error_of_hydra(app: App) -> None:
    def job(config: RunConfig, run_dir: Path) -> float:
        (run_dir / "none/of/these").mkdir()
        return 0.0

    app.job = job  # type: ignore[method-assign]
    with pytest.raises(FileNotFoundError):
        app()


def test_full_error_shows_the_traceback(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    app.error = StreamError("stream x: is empty; drop it.")
    with pytest.raises(StreamError):
        app()
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_interrupt_ends_with_130(app: App) -> None:
    app.error = KeyboardInterrupt()
    assert app() == 130
    assert "Traceback" not in app.err


@pytest.mark.road
def test_multirun_goes_on_after_a_failed_job(app: App) -> None:
    app.error = StreamError("stream x: is empty; drop it.")
    assert app("-m", "seed=1,2", "hydra.sweep.dir=sweep") == 2
    assert len(app.jobs) == 2
    assert app.err.count("error: job 0-default-seed1: stream x: is empty") == 1
    assert "Traceback" not in app.err
    table = Path("sweep/table.csv").read_text()
    assert "0-default-seed1,running or failed" in table
    assert "1-default-seed2,done" in table


@pytest.mark.road
def test_multirun_shows_the_traceback_of_a_bug_once(app: App) -> None:
    app.error = RuntimeError("bug")
    assert app("-m", "seed=1,2") == 1
    assert len(app.jobs) == 2
    assert app.err.count("RuntimeError: bug") == 1


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


def test_help_shows_experiments_groups_and_every_key(app: App) -> None:
    (app.conf_dir / "trainer/quick.yaml").write_text("max_step: 3\n")  # help works nevertheless
    assert app("--help") == 0
    assert app.err == ""
    assert re.search(r"per_turn +Decisions at the ends of turns", app.out)
    assert re.search(r"objective +per_token, per_turn", app.out)
    assert "trainer.max_steps: int = 600\n      Optimizer steps; -1 for no limit.\n" in app.out
    assert "logger.wandb: offline|online|disabled = offline\n" in app.out
    assert "stream.theta_speak: float or null = null\n" in app.out
    assert "data.toy: How the ``toy`` recordings are invented." in app.out
    assert max(map(len, app.out.splitlines())) <= 130


def test_examples_of_the_help_need_no_data(app: App) -> None:
    assert app("--help") == 0
    examples, _, rest = app.out.partition("Experiments (+experiment=NAME)")
    assert set(re.findall(r"\+experiment=(\w+)", examples.partition("\n\n  ")[2])) == {"per_turn"}
    listed = re.findall(r"^  (\w+) ", rest.partition("Sweeps")[0], re.MULTILINE)
    assert len(listed) == len(list((REPO_CONF / "experiment").glob("*.yaml")))
    texts = [(REPO_CONF / f"experiment/{name}.yaml").read_text() for name in listed]
    chooses = ["override /data" in text or "override /model" in text for text in texts]
    assert chooses == sorted(chooses)
    assert not chooses[0]
    assert chooses[-1]


@pytest.mark.road
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cfg", "job"], "max_steps: "),
        (["--cfg", "job", "-p", "trainer", "trainer.max_steps=9"], "max_steps: 9"),
        (["--hydra-help"], "Hydra"),
        (["--info", "searchpath"], "structured://"),
    ],
)
def test_options_of_hydra_still_work(app: App, arguments: list[str], said: str) -> None:
    assert app(*arguments) == 0
    assert said in app.out
    assert app.jobs == []


def chosen_by_none() -> list[Path]:
    """The file of the default run, and all that it does not use itself."""
    defaults = yaml.safe_load((REPO_CONF / "config.yaml").read_text())["defaults"]
    used = {f"{g}/{o}.yaml" for d in defaults if isinstance(d, dict) for g, o in d.items()}
    paths = sorted(REPO_CONF.rglob("*.yaml"))
    return [path for path in paths if path.relative_to(REPO_CONF).as_posix() not in used]


@pytest.mark.parametrize("path", chosen_by_none(), ids=lambda p: p.stem)
def test_every_yaml_of_the_repository_composes(path: Path) -> None:
    group = path.parent.relative_to(REPO_CONF).as_posix()
    choice = {
        ".": [],
        "experiment": [f"+experiment={path.stem}"],
        "sweep": [f"+sweep={path.stem}"],
        "debug": [f"+debug={path.stem}"],
    }.get(group)
    choice = choice if choice is not None else [f"{group}={path.stem}"]
    assert compose([*choice, "data.root=x"], conf_dir=REPO_CONF).data.root == "x"


@pytest.mark.road
def test_errors_reach_the_shell(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        "from pathlib import Path\nfrom proassist_lit.cli import run_app\n"
        "def job(config, run_dir):\n    print('ran', config.seed, run_dir.name)\n"
        f"if __name__ == '__main__':\n    run_app(job, conf_dir=Path({str(REPO_CONF)!r}))\n"
    )
    command = [sys.executable, str(program)]
    bad = subprocess.run(
        [*command, "trainer.max_step=3"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: trainer.max_step=3: ")
    assert bad.stderr.count("\n") == 1
    good = subprocess.run(
        [*command, "hydra.run.dir=out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (good.returncode, good.stdout, good.stderr) == (0, "ran 1 out\n", "")
    assert (tmp_path / "out/train.log").exists()


def test_compose_gives_what_a_job_would_get() -> None:
    config = compose(["+experiment=per_token", "objective.rho=0.5"], conf_dir=REPO_CONF)
    assert (config.name, config.objective.kind) == ("per_token", ObjectiveKind.PER_TOKEN)
    assert config.objective.rho == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.roh=0.5", r"objective\.roh=0\.5: .*objective\.rho"),
        ("+experiment=per_tokn", r"per_tokn.*per_token"),
        ("seed=[1", r"seed=\[1"),
        ("objective.rho=2", r"objective\.rho must be in \[0, 1\], got 2"),
    ],
)
def test_compose_refuses_what_a_run_would_refuse(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([override], conf_dir=REPO_CONF)


def test_every_key_of_the_configuration_is_explained() -> None:
    from proassist_lit.config_help import field_docs

    docs = field_docs(RunConfig)
    assert docs["seed"] == "Seed of weights, order of training, and sub-sampling."
    assert docs["data"] == ""  # a section explains itself
