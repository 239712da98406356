from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from proassist_lit.commands.main import main
from proassist_lit.config import Compat, RunConfig
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.sequence.rules import DST_EXTENSION, OURS, PROASSIST, SequenceRules, rules_for
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.commands.lines import Captured, error, record
from tests.data import dst_rows as dst


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
