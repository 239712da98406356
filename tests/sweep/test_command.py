"""A search by the command line, with Hydra's own launcher and a job that trains nothing."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from optuna.trial import FrozenTrial

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import from_plain
from proassist_lit.job_result import Pruned
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.room import room_to_write
from proassist_lit.sweep import launcher
from proassist_lit.sweep.study import STUDY_NAME, open_storage
from tests.app import REPO_CONF, App
from tests.fakes import word_chat

pytestmark = pytest.mark.road

SEARCH = ("-m", "hydra/sweeper=proassist_optuna", "hydra.sweep.dir=sweep")
LR = "trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))"


def trials() -> list[FrozenTrial]:
    with open_storage(Path("sweep")) as storage:
        return storage.get_all_trials(storage.get_study_id_from_name(STUDY_NAME))


def states() -> list[str]:
    return [trial.state.name for trial in trials()]


def test_search_of_the_repository_runs_and_its_best_runs_again(app: App) -> None:
    command = ["-m", "+experiment=per_token", "+sweep=optuna", "hydra.sweep.dir=sweep"]
    assert app(*command, "hydra.sweeper.num_trials=2") == 0

    for trial, (config, run_dir) in zip(trials(), app.jobs, strict=True):
        assert run_dir == Path.cwd() / f"sweep/{trial.number}-per_token-seed1"
        assert config.objective.kind.value == "per_token"
        assert trial.params["trainer.optimizer.lr"] == config.trainer.optimizer.lr
        assert trial.params["trainer.optimizer.warmup_steps"] == str(
            config.trainer.optimizer.warmup_steps
        )
        assert trial.value == 0.5
    assert len(app.jobs) == 2
    assert Path("sweep/multirun.yaml").exists()
    assert len(Path("sweep/table.csv").read_text().splitlines()) == 3
    program, script, *again = shlex.split(app.out.splitlines()[-1].partition(": ")[2])
    assert (program, script) == ("python", "train.py")
    assert app(*again) == 0
    assert app.jobs[2][0] == app.jobs[0][0]


def test_search_stopped_in_a_batch_goes_on(app: App) -> None:
    seen: list[tuple[int, float, str]] = []

    def job(config: RunConfig, run_dir: Path) -> float:
        number = int(run_dir.name.split("-")[0])
        seen.append((number, config.trainer.optimizer.lr, config.resume))
        if len(seen) == 2:
            raise KeyboardInterrupt
        if number == 2:
            raise RuntimeError("out of luck")
        if number == 3:
            raise Pruned("at step 5")
        return config.trainer.optimizer.lr

    app.job = job  # type: ignore[method-assign]
    assert app(*SEARCH, "hydra.sweeper.num_trials=4", "hydra.sweeper.n_jobs=2", LR) == 130
    assert states() == ["RUNNING"] * 2
    [said] = re.findall("Go on with: (.*)", app.err)

    assert app(*shlex.split(said)[2:]) == 0

    assert [number for number, *_ in seen] == [0, 1, 1, 2, 3]
    assert seen[1][1:] == (seen[2][1], "none")
    assert seen[2][2] == "auto"
    assert "job 0-default-seed1: finished earlier" in app.out
    assert "RuntimeError: out of luck" in app.err
    assert states() == ["COMPLETE", "COMPLETE", "FAIL", "PRUNED"]
    assert "3-default-seed1,pruned" in Path("sweep/table.csv").read_text()


def test_values_arrive_as_what_they_are(app: App) -> None:
    space = ("stream.theta_speak=null,1e-3", "model.dst=true,no", "name=per_token,'a=b, c'",
             "+experiment=per_turn,per_token")  # fmt: skip
    batch = ("hydra.sweeper.num_trials=5", "hydra.sweeper.n_jobs=5")
    assert app(*SEARCH, *batch, *space) == 0
    configs = [config for config, _ in app.jobs]
    assert {config.stream.theta_speak for config in configs} == {None, 0.001}
    assert {config.model.dst for config in configs} == {True, False}
    assert {config.name for config in configs} == {"per_token", "a=b, c"}
    kinds = [config.objective.kind.value for config in configs]
    assert set(kinds) == {"per_turn", "per_token"}
    assert [trial.params["experiment"] for trial in trials()] == kinds


def test_preset_that_stands_last_wins_over_a_searched_experiment(app: App) -> None:
    few = ("hydra.sweeper.num_trials=2", "hydra.sweeper.n_jobs=2")
    assert app(*SEARCH, *few, "+experiment=per_turn,per_token", "+debug=fdr") == 0
    for config, _ in app.jobs:
        assert (config.name, config.trainer.max_steps) == ("debug_fdr", 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["+foo=1,2"], "+foo=1,2: there is no key or config group 'foo'"),
        (["trainer.optimizer.rl=interval(0,1)"], "has no key 'rl'"),
        (["hydra.sweeper.num_trial=3", LR], "the nearest is 'hydra.sweeper.num_trials'"),
        (["hydra.sweeper.num_trials=many", LR], "hydra.sweeper.num_trials must be int"),
        (["seed=1,x"], "seed must be int"),
        (["hydra.sweeper.num_trials=0", "hydra.sweeper.warmup_steps=-1", LR],
         "hydra.sweeper.num_trials must be at least 1, got 0"),
        (["hydra.sweeper.pruner=mean", LR], "hydra.sweeper.pruner must be median or none"),
        (["hydra.sweeper.direction=up", LR], "direction must be maximize or minimize, got 'up'"),
        (["+experiment=glob(per_*)"], "+experiment=glob(per_*): a search takes no glob"),
    ],
)  # fmt: skip
def test_what_makes_no_search_is_refused(app: App, arguments: list[str], said: str) -> None:
    assert app(*SEARCH, *arguments) == 2
    assert f"error: {said}" in app.err or said in app.said()
    assert app.jobs == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_trial: 3", "own.yaml:6: .*nearest is 'hydra.sweeper.num_trials'"),
        ("num_trials: many", "own.yaml:6: hydra.sweeper.num_trials must be int"),
        ("params:\n      trainer.optimizer.rl: 1,2",
         "own.yaml:7: trainer.optimizer.rl=1,2: .*'rl'"),
        ("params:\n      +foo: 1,2", r"own.yaml:7: \+foo=1,2: .*no key .*'foo'"),
        ("params:\n      seed: 1,[2", r"own.yaml:7: seed=1,\[2: mismatched input"),
    ],
)  # fmt: skip
def test_misspelt_sweep_file_stops_every_run(app: App, text: str, said: str) -> None:
    (app.conf_dir / "sweep/own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: proassist_optuna\n"
        f"hydra:\n  sweeper:\n    {text}\n"
    )
    assert app("seed=2") == 2
    assert re.search(f"error: conf/sweep/{said}", app.said())
    assert app.jobs == []


def test_keys_of_a_search_are_no_keys_of_another_sweeper(app: App) -> None:
    assert app("-m", "hydra.sweeper.num_trials=2", "seed=1,2") == 2
    assert "num_trials" in app.said()
    assert app.jobs == []


@pytest.mark.parametrize("choice", ["+sweep=optuna", "hydra/launcher=joblib"])
def test_missing_extra_is_named_before_anything_runs(
    app: App, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "find_spec", lambda name: None)
    assert app("-m", choice, "seed=1,2") == 2
    assert "pip install -e '.[sweep]'" in app.said()
    assert app.jobs == []


def test_multi_process_job_of_a_multirun_is_refused(app: App) -> None:
    assert app("-m", "trainer.devices=2", "hydra.sweep.dir=sweep") == 2
    assert app.jobs == []
    assert "error: job 0-default-seed1: trainer.devices=2 starts several" in app.err
    assert "hydra/launcher=basic" in app.err


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process sees two GPUs unless it is told of one."""
    monkeypatch.setattr(launcher, "_held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5")
    monkeypatch.setattr(
        torch.cuda, "device_count", lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
    )


IN_THIS_PROCESS = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")


@pytest.mark.usefixtures("two_gpus")
def test_jobs_under_joblib_take_a_gpu_of_those_that_are_seen(app: App) -> None:
    assert app("-m", "seed=1,2", "hydra/launcher=basic") == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7,5"
    assert app("-m", "seed=3,4", *IN_THIS_PROCESS) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert [config.seed for config, _ in app.jobs] == [1, 2, 3, 4]


@pytest.mark.usefixtures("two_gpus")
def test_job_that_came_to_its_end_earlier_takes_no_gpu(app: App) -> None:
    sweep = ("-m", "hydra.sweep.dir=sweep", "seed=1,2")
    assert app(*sweep, "hydra/launcher=basic") == 0
    assert app(*sweep, *IN_THIS_PROCESS) == 0
    assert len(app.jobs) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7,5"


def test_sweep_started_again_runs_what_is_missing(app: App) -> None:
    app.error = RuntimeError("bug")  # of seed 1
    assert app("-m", "seed=3,1", "hydra.sweep.dir=sweep") == 1
    app.error = None
    assert app("-m", "seed=3,1,2", "hydra.sweep.dir=sweep") == 0
    assert [(config.seed, config.resume) for config, _ in app.jobs] == [
        (3, "none"), (1, "none"), (1, "auto"), (2, "none"),
    ]  # fmt: skip
    assert app.out.count("not run again") == 1
    assert "job 0-default-seed3: finished earlier (value 0.5); not run again." in app.out


def test_sweep_with_other_settings_does_not_touch_what_is_there(app: App) -> None:
    assert app("-m", "seed=3", "hydra.sweep.dir=sweep") == 0
    assert app("-m", "seed=3", "hydra.sweep.dir=sweep", "model.dst=false") == 2
    assert "holds a job with model.dst True, not False" in app.err
    assert len(app.jobs) == 1


def test_help_lists_sweeps_and_the_keys_of_a_search(app: App) -> None:
    assert app("--help") == 0
    assert re.search(r"Sweeps \(-m \+sweep=NAME\):\n\n.*\n  learning_rate +The learning", app.out)
    assert "hydra.sweeper.num_trials: int = 20\n      Trials in all" in app.out
    assert "_target_" not in app.out


def test_optuna_is_not_imported_without_a_search() -> None:
    code = (
        "import sys\nfrom hydra.core.plugins import Plugins\nPlugins.instance()\n"
        "assert 'hydra_plugins.proassist_lit_optuna' in sys.modules\n"
        "print([name in sys.modules for name in ('optuna', 'torch', 'lightning')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[False, False, False]\n"


def test_sweep_that_the_documentation_gives_to_wandb_can_be_run(app: App) -> None:
    text = (REPO_CONF.parent / "docs/sweeps.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    sweep = yaml.safe_load(block)
    chosen = [
        f"{key}={(values.get('values') or [values['min']])[-1]}"
        for key, values in sweep["parameters"].items()
    ]
    *begin, last = sweep["command"][3:]
    assert last == "${args_no_hyphens}"
    assert app(*begin, *chosen) == 0
    assert app.jobs[0][0].model.head.value == "mlp"


def test_sweeps_in_the_documentation_are_those_there_are() -> None:
    text = (REPO_CONF.parent / "docs/sweeps.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", text, re.MULTILINE))
    assert set(rows) == {path.stem for path in (REPO_CONF / "sweep").glob("*.yaml")}
    for name in ("objectives", "context_strategies"):
        settings = yaml.safe_load((REPO_CONF / f"sweep/{name}.yaml").read_text())
        values = settings["hydra"]["sweeper"]["params"].values()
        assert math.prod(len(text.split(",")) for text in values) == int(rows[name])
    for name in ("optuna", "learning_rate"):
        settings = yaml.safe_load((REPO_CONF / f"sweep/{name}.yaml").read_text())
        assert settings["hydra"]["sweeper"]["num_trials"] == int(rows[name])


@pytest.mark.parametrize("strategy", ["drop_all", "drop_middle", "dst_refresh", "summarize"])
def test_contexts_of_the_ready_sweep_have_room_to_write(strategy: str) -> None:
    settings = yaml.safe_load((REPO_CONF / "sweep/context_strategies.yaml").read_text())
    assert strategy in settings["hydra"]["sweeper"]["params"]["stream.strategy"]
    stream = from_plain(StreamConfig, settings["stream"] | {"strategy": strategy})
    room_to_write(word_chat(), stream, num_tokens_per_img=1)
