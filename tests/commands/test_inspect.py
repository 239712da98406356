from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from proassist_lit.commands.main import main
from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn, FramesTurn
from proassist_lit.data.records import read_records, write_records
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.report.data_chat import choose_chat
from proassist_lit.report.example_report import clock
from proassist_lit.sequence.examples import ExampleSet
from proassist_lit.sequence.rules import DST_EXTENSION, OURS, PROASSIST, SequenceRules, rules_for
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.sequence.splitting import split_conversation
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.commands.lines import Captured, error, record
from tests.data import dst_rows as dst
from tests.fakes import dialogue


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
    cut = ["--splitting", "cut", "--max-seq-len", str(int(num_tokens) - 1)]
    assert main(["inspect", str(data), *cut]) == 0
    assert "9 of 10; cut at the longest sequence allowed" in capsys.readouterr().out


def test_inspect_shows_what_a_model_without_a_state_is_trained_on(
    data: Path, capsys: Captured
) -> None:
    argv = ["inspect", str(data), "--index", "2", "--objective", "per_token"]
    assert main(argv) == 0
    assert "S1->start" in capsys.readouterr().out
    assert main([*argv, "--no-dst"]) == 0
    out = capsys.readouterr().out
    assert "S1->start" not in out
    assert "Steps:" not in out
    assert re.search(r"updates, language-model loss +0 tokens", out)
    assert re.search(r"update decisions +none: .* or they are not told", out)


@pytest.mark.parametrize("splitting", SplitMethod)
def test_inspect_shows_the_parts_that_training_sees(
    splitting: SplitMethod, tmp_path: Path, capsys: Captured
) -> None:
    words = AssistantTurn(content="wait", progress="so far")
    frames = [FramesTurn(start=i, end=i + 20) for i in range(0, 80, 20)]
    talk = dialogue([turn for watched in frames for turn in (watched, words)])
    write_records(tmp_path / "long.jsonl", [talk])
    [talk] = read_records(tmp_path / "long.jsonl")
    chat, _ = choose_chat([talk], None, None)
    config = SplitConfig(method=splitting)
    parts = split_conversation(
        talk, chat, config, num_tokens_per_img=1, max_seq_len=100, seed=DataConfig().seed
    )
    trained = ExampleSet(
        parts, lambda _: torch.empty(0), chat, num_tokens_per_img=1, max_seq_len=100, rho=1.0,
        turn_frames=None, seed=1,
    )  # fmt: skip
    assert len(parts) == (1 if splitting is SplitMethod.CUT else 2)

    argv = ["inspect", str(tmp_path), "--objective", "per_token", "--max-seq-len", "100"]
    argv += ["--splitting", splitting.value]
    for number, sequence in enumerate(trained.sequences, start=1):
        assert main([*argv, "--part", str(number)]) == 0
        out = capsys.readouterr().out
        indices = sequence.frame_indices.tolist()
        times = f"{clock(indices[0] / 2)} to {clock(indices[-1] / 2)} at 2 fps"
        assert re.search(rf"frames +{len(indices)}\b.*; {times}", out)
        assert re.search(rf"tokens +{len(sequence.input_ids)}: ", out)
        assert (f"; part {number} of 2 that" in out) == (len(parts) == 2)
        assert ("cut at the longest" in out) == (splitting is SplitMethod.CUT)
    assert main([*argv, "--part", "3"]) == 2
    assert f"--part 3: the parts of record 0 are 1 to {len(parts)}; give" in error(capsys)


def test_methods_of_inspect_are_those_of_training(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    choices = re.findall(r"--splitting \{(.+?)\}", capsys.readouterr().out)
    assert choices[-1].split(",") == [method.value for method in SplitMethod]


def test_a_record_that_training_leaves_out_has_no_part(tmp_path: Path, capsys: Captured) -> None:
    write_records(tmp_path / "mute.jsonl", [dialogue((FramesTurn(start=0, end=80),))])
    argv = ["inspect", str(tmp_path), "--max-seq-len", "64"]
    assert main(argv) == 2
    assert "mute.jsonl:1: is longer than 64 tokens, and no assistant speaks in it" in error(capsys)
    assert main([*argv, "--splitting", "cut"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--index", "3"], "holds 3 records; give 0 to 2"),
        (["--index", "-1"], "give 0 to 2"),
        (["--chat", "klingon"], "model.chat is 'klingon'; known are "),
        (["--tokenizer", "nowhere"], "--tokenizer nowhere: is not a folder; give"),
        (["--tokens", "3"], r"--tokens 3: choose one of 1, 5, 10, 26\."),
        (["--part", "2"], r"--part 2: the parts of record 0 are 1 to 1; give one"),
        (["--rho", "2"], r"objective.rho must be in \[0, 1\], got 2.0"),
        (["--turn-frames", "0"], "objective.turn_frames must be at least 1"),
        (["--max-seq-len", "9"], r"a.jsonl:1: frame 10 with the prompt and .* does not fit"),
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


def test_inspect_shows_empty_words_where_training_reads_them(data: Path, capsys: Captured) -> None:
    (data / "dst.json").write_text(json.dumps([dst.with_turn(5, content="")]))
    argv = ["inspect", str(data / "dst.json"), "--chat", "dst_ext"]
    assert main(argv) == 2
    assert "turn 5: 'content' is empty" in capsys.readouterr().err
    assert main([*argv, "--compat", "proassist"]) == 0
    assert "S2->start" in capsys.readouterr().out


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
