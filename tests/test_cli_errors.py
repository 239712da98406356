"""What a user can cause ends in one line; what is a bug keeps its traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proassist_lit.config import RunConfig
from proassist_lit.errors import StreamError
from tests.app import REPO_CONF, App


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
        ("trainer.precision=transformer-engine", "no such precision; the nearest is"),
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


def test_misspelling_in_any_file_stops_every_run(app: App) -> None:
    (app.conf_dir / "trainer/quick.yaml").write_text("max_steps: 5\n\nmax_epoch: 3\n")
    assert app("trainer.max_steps=1") == 2
    assert "conf/trainer/quick.yaml:3: " in app.said()
    assert "'trainer.max_epochs'" in app.err


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


def test_processes_of_a_launch_do_not_train_a_run_each(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    assert app("trainer.max_steps=1") == 2
    assert "2 processes were started, but trainer.devices=1 on trainer.num_nodes=1" in app.said()
    assert not app.jobs
    assert app("trainer.devices=2") == 0
    assert len(app.jobs) == 1
