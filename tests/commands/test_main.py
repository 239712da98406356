from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proassist_lit import __version__
from proassist_lit.commands.main import main
from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.records import write_records
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.sequence.rules import (
    DST_EXTENSION,
    OURS,
    PROASSIST,
    SequenceRules,
    rules_for,
)
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.data import dst_rows as dst
from tests.fakes import dialogue

ROOT = Path(__file__).parents[2]
DATA_DIR = Path(os.environ.get("PROASSIST_DATA_DIR", ROOT.parent / "shared/data"))
SAMPLE = DATA_DIR / "proassist/dialog_sample.jsonl"

Captured = pytest.CaptureFixture[str]


def record(**changed: object) -> str:
    fields = {
        "dataset": "d", "video_uid": "v", "clip_idx": 0, "frames_file": "v.safetensors",
        "fps": 2.0, "num_tokens_per_img": 1, "start_frame_idx": 0, "end_frame_idx": 2,
        "conversation": [{"role": "frames", "start": 0, "end": 2}], "metadata": {},
    }  # fmt: skip
    return json.dumps(fields | changed) + "\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three dialogues of two files, in a folder."""
    write_records(tmp_path / "data/a.jsonl", [dialogue(), dialogue(video_uid="second")])
    write_records(tmp_path / "data/b.json", [dialogue(video_uid="third")])
    (tmp_path / "data/manifest.json").write_text("{}")
    return tmp_path / "data"


def error(capsys: Captured) -> str:
    """The one line of error."""
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


def test_validate_counts_records_and_lists_every_fault(tmp_path: Path, capsys: Captured) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(record() * 2)
    turns = [{"role": "frames", "start": 0, "end": 2}, {"role": "robot"}, {"role": "user"}]
    bad.write_text(record(fps=0, conversation=turns) + record() + record(dataset=3))
    assert main(["validate", str(good)]) == 0
    assert capsys.readouterr().out.startswith(f"{good}: 2 records, no faults\n")
    assert main(["validate", str(good), str(bad)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{bad}: 1 sound record, 4 faults"
    assert [line.split(" ")[0] for line in lines[2:6]] == [f"{bad}:1:"] * 3 + [f"{bad}:3:"]
    assert "'fps'" in lines[2]
    assert "turn 1" in lines[3]
    assert "'robot'" in lines[3]
    assert "turn 2" in lines[4]
    assert "'dataset'" in lines[5]
    assert any(re.search(r"records +3 ", line) for line in lines)


def test_validate_ends_with_2_where_something_cannot_be_read(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(record(fps=0))
    assert main(["validate", str(data), str(bad), str(tmp_path / "none.jsonl")]) == 2
    out = capsys.readouterr().out
    assert f"{bad}:1: " in out
    assert "none.jsonl: cannot be read: No such file or directory. Check" in out
    assert re.search(r"records +3 ", out)
    (tmp_path / "empty").mkdir()
    assert main(["validate", str(tmp_path / "empty")]) == 2
    assert "no prepared file below" in error(capsys)


def test_validate_without_a_sound_record_still_lists_faults(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n")
    assert main(["validate", str(tmp_path)]) == 1
    assert "not valid JSON" in capsys.readouterr().out


def test_validate_reads_folders_and_writes_a_page(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    page = tmp_path / "pages/data.html"
    assert main(["validate", str(data), "--html", str(page), "--tokens", "5"]) == 0
    out = capsys.readouterr().out
    assert f"{data}/manifest.json: left out" in out
    assert f"{data}/b.json: 1 record, no faults" in out
    assert re.search(r"utterances +12 ", out)
    assert re.search(r"speak +9 +15 +6 ", out)
    assert re.search(r"frames +30 +K = 5", out)
    assert "trained on these records, chat format compact" in out
    assert not re.search(r"https?:|<script|src=", page.read_text())
    assert main(["validate", str(data), "--tokens", "3"]) == 2
    assert "--tokens 3: choose one of 1, 5, 10, 26." in error(capsys)
    assert main(["validate", str(data), "--html", str(data)]) == 2
    assert re.search(r"--html \S+: cannot be written to \(Is a directory\)", error(capsys))
    assert main(["validate", str(data), "--html", "/"]) == 2
    assert "--html /: cannot be written to (Is a directory)" in error(capsys)


def test_tokenizer_of_a_folder_brings_its_chat_format(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    from proassist_lit.model.tokenizer import train_tokenizer
    from proassist_lit.sequence.chat import FORMATS

    folder = tmp_path / "tokenizer"
    train_tokenizer(["first wash"], FORMATS["chatml"], 300).save_pretrained(folder)
    assert main(["validate", str(data), "--tokenizer", str(folder)]) == 0
    assert f"of {folder} (" in (out := capsys.readouterr().out)
    assert "chat format chatml." in out
    assert main(["inspect", str(data), "--tokenizer", str(folder)]) == 0
    assert "<|im_start|>assistant\nfirst wash" in unwrapped(capsys)
    assert main(["inspect", str(data), "--tokenizer", str(folder), "--chat", "compact"]) == 0
    assert "<|assistant|>⟦first wash" in capsys.readouterr().out


def unwrapped(capsys: Captured) -> str:
    """Text with the cells' line breaks as they were, signs of loss aside."""
    out = re.sub(r"[⟦⟧⟪⟫]", "", capsys.readouterr().out)
    return re.sub(r" *\n {10,}", "\n", out)


def test_inspect_shows_the_record_and_writes_a_page(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    page = tmp_path / "example.html"
    argv = ["inspect", str(data), "--index", "2", "--objective", "per_token", "--html", str(page)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"third_0_user  ({data}/b.json[0])")
    assert "objective per_token, rho 1, epoch 0\n" in re.sub(" +\n", "\n", out)
    assert "▣ 14 (0:07.0) S+ U+" in out
    assert "3 pos, 5 neg; 0 not trained on, 2 neither" in out
    assert f"wrote {page}" in out
    assert "▣ 14 (0:07.0)" in page.read_text()


def test_inspect_takes_the_settings_of_training(data: Path, capsys: Captured) -> None:
    options = ["--objective", "per_turn", "--turn-frames", "1", "--rho", "0", "--tokens", "5"]
    assert main(["inspect", str(data), *options, "--epoch", "3"]) == 0
    out = capsys.readouterr().out
    assert "objective per_turn, rho 0, epoch 3, turns of 1 silent frames" in out
    # Frame 13 has an update only: of silent frames none is left, it is.
    assert "3 pos, 1 neg; 4 not trained on, 2 neither" in out
    assert "50 of images (K = 5 a frame)" in out
    assert main(["inspect", str(data)]) == 0
    [num_tokens] = re.findall(r"\ntokens +(\d+):", capsys.readouterr().out)
    assert main(["inspect", str(data), "--max-seq-len", str(int(num_tokens) - 1)]) == 0
    assert "9 of 10; cut at the longest sequence allowed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--index", "3"], "holds 3 records; give 0 to 2"),
        (["--index", "-1"], "give 0 to 2"),
        (["--chat", "klingon"], "model.chat is 'klingon'; known are "),
        (["--tokenizer", "nowhere"], "--tokenizer nowhere: is not a folder; give"),
        (["--tokens", "3"], r"--tokens 3: choose one of 1, 5, 10, 26\."),
        (["--rho", "2"], r"objective.rho must be in \[0, 1\], got 2.0"),
        (["--turn-frames", "0"], "objective.turn_frames must be at least 1"),
        (["--max-seq-len", "9"], r"a.jsonl:1: the prompt and the first frame do not fit"),
    ],
)
def test_inspect_refuses_in_one_line(
    options: list[str], said: str, data: Path, capsys: Captured
) -> None:
    assert main(["inspect", str(data), *options]) == 2
    assert re.search(said, error(capsys))


def test_inspect_refuses_data_and_tokenizers_that_are_none(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    assert main(["inspect", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: cannot be read" in error(capsys)
    (tmp_path / "bad.jsonl").write_text(record() + record(fps=0))
    assert main(["inspect", str(tmp_path / "bad.jsonl")]) == 2
    assert "bad.jsonl:2: " in error(capsys)
    assert main(["inspect", str(data), "--tokenizer", str(data)]) == 2
    assert re.search(r"--tokenizer \S+: holds no tokenizer \(.+\); give", error(capsys))


def test_tokenizer_without_any_known_special_token_needs_a_chat_format(
    tmp_path: Path, data: Path, capsys: Captured
) -> None:
    from dataclasses import replace

    from proassist_lit.model.tokenizer import train_tokenizer
    from proassist_lit.sequence.chat import FORMATS

    table = replace(FORMATS["compact"], special_tokens=("</s>",), end_of_turn="</s>")
    folder = tmp_path / "tokenizer"
    train_tokenizer(["wash"], table, 300).save_pretrained(folder)
    assert main(["inspect", str(data), "--tokenizer", str(folder)]) == 2
    assert "name the format by --chat, one of chatml" not in (line := error(capsys))
    assert re.search(r"knows the special tokens of no chat format; name .*--chat, one of", line)
    assert main(["inspect", str(data), "--tokenizer", str(folder), "--chat", "chatml"]) == 0


def test_objectives_of_inspect_are_those_of_training(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    choices = re.findall(r"--objective \{(.+?)\}", capsys.readouterr().out)
    assert choices[-1].split(",") == [kind.value for kind in ObjectiveKind]


def test_prepared_rows_of_proassist_are_read_in_place(tmp_path: Path, capsys: Captured) -> None:
    if not SAMPLE.exists():
        pytest.skip(f"no real rows at {SAMPLE}")
    page = tmp_path / "page.html"
    assert main(["validate", str(SAMPLE), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    frames = sum(row["end_frame_idx"] - row["start_frame_idx"] for row in rows)
    said = [turn for row in rows for turn in row["conversation"] if turn["role"] == "assistant"]
    assert re.search(rf"utterances +{len(said)} ", out)
    assert f"{frames:,}".replace(",", "\u202f") in out
    assert main(["inspect", str(SAMPLE), "--index", "5"]) == 0


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


def test_validate_reads_rows_of_the_dst_extension_beside_records(
    data: Path, capsys: Captured
) -> None:
    (data / "dst.json").write_text(json.dumps([dst.row(), dst.EVENTS]))
    assert main(["validate", str(data)]) == 0
    out = capsys.readouterr().out
    assert f"{data}/dst.json: 2 records, no faults" in out
    assert re.search(r"records +5 ", out)
    assert re.search(rf"state updates +{3 * 3 + 3 + 3} ", out)

    bad = dst.with_turn(5, content="", speaking=2) | {"fps": 0}
    (data / "dst.json").write_text(json.dumps([dst.row(), bad]))
    assert main(["validate", str(data / "dst.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{data}/dst.json: 1 sound record, 3 faults"
    assert all(line.startswith(f"{data}/dst.json[1]: ") for line in lines[1:4])
    assert main(["inspect", str(data / "dst.json")]) == 2
    assert "dst.json[1]: turn 5: 'content' is empty" in error(capsys)


def test_inspect_shows_rows_of_the_dst_extension_by_either_rules(
    data: Path, capsys: Captured
) -> None:
    (data / "dst.json").write_text(json.dumps([dst.row()]))
    argv = ["inspect", str(data / "dst.json"), "--objective", "per_token", "--chat", "dst_ext"]
    assert main(argv) == 0
    ours = capsys.readouterr().out
    assert "User: Soup?" in ours
    assert "S1->complete;S2->start" in ours
    assert main([*argv, "--compat", "proassist"]) == 0
    theirs = capsys.readouterr().out
    assert "epoch 0, rules of proassist" in theirs
    assert "User:" not in theirs
    assert "S1->complete;S2->start" not in theirs  # a span an update
    assert "0 not trained on, 0 neither" in theirs


def test_inspect_shows_records_by_the_rules_of_proassist(data: Path, capsys: Captured) -> None:
    argv = ["inspect", str(data), "--objective", "per_token"]
    assert main(argv) == 0
    assert "3 pos, 5 neg; 0 not trained on, 2 neither" in capsys.readouterr().out
    assert main([*argv, "--compat", "proassist"]) == 0
    # Frame 18 ends a frames turn: not joined with the next, it is neither.
    assert "3 pos, 4 neg; 0 not trained on, 3 neither" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("compat", "chat", "rules"),
    [
        (Compat.NONE, "compact", OURS),
        (Compat.NONE, "dst_ext", OURS),
        (Compat.PROASSIST, "llama3", PROASSIST),
        (Compat.PROASSIST, "dst_ext", DST_EXTENSION),
    ],
)
def test_rules_of_a_run_follow_compat_and_chat(
    compat: Compat, chat: str, rules: SequenceRules
) -> None:
    assert rules_for(compat is Compat.PROASSIST, chat) == rules
    run = RunConfig(compat=compat, stream=StreamConfig(strategy=Strategy.DROP_MIDDLE))
    run.model.chat = chat
    assert run.rules == rules


def test_compat_of_inspect_is_that_of_training(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    choices = re.findall(r"--compat \{(.+?)\}", capsys.readouterr().out)
    assert choices[-1].split(",") == [compat.value for compat in Compat]
