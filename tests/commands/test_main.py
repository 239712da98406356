from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proassist_lit import __version__
from proassist_lit.commands.main import main
from tests.commands.lines import Captured, error

ROOT = Path(__file__).parents[2]


def test_runs_prints_the_table_of_a_multirun(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "sweep/0-a").mkdir(parents=True)
    (tmp_path / "sweep/0-a/metrics.json").write_text('{"test/utterance_f1": 0.25}')
    assert main(["runs", str(tmp_path / "sweep")]) == 0
    assert re.search(r"0-a +done +0\.2500", capsys.readouterr().out)
    (tmp_path / "sweep/0-a/config.yaml").write_text("seed: 7\nobjective: {rho: 0.2}\n")
    assert main(["runs", str(tmp_path / "sweep"), "--keys", "objective.rho", "seed"]) == 0
    assert re.search(r"0-a +done +0\.2 +7 +0\.2500", capsys.readouterr().out)
    assert main(["runs", str(tmp_path / "sweep"), "--keys", "seeed"]) == 2
    assert "--keys seeed: no run has such a setting; the nearest is 'seed'." in error(capsys)
    (tmp_path / "file").touch()
    assert main(["runs", str(tmp_path / "sweep"), "--out", str(tmp_path / "file/x.html")]) == 2
    assert "file/x.html: cannot be written to" in error(capsys)
    assert main(["runs", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--version"], 0, __version__),
        (["--help"], 0, "validate"),
        (["encode", "--help"], 0, "--out DIR folder for the feature files"),
        (["watch", "--help"], 0, "--out DIR folder for these files (default: the current one)"),
        (["demo", "--help"], 0, "--port N port to listen at (default: 8000)"),
        ([], 2, ""),
        (["x"], 2, ""),
        (["inspect", "x", "--tokens", "0"], 2, ""),
    ],
)
def test_command_explains_itself(argv: list[str], code: int, said: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == code
    assert said in " ".join(capsys.readouterr().out.split())


def test_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupt(directory: Path, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("proassist_lit.report.runs.runs_table", interrupt)
    assert main(["runs", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_waits_for_no_heavy_library() -> None:
    program = (
        "import sys\nfrom proassist_lit.commands.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'hydra', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_console_script_is_this_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"proassist-lit": f"{main.__module__}:{main.__name__}"}
