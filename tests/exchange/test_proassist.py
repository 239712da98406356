"""Checkpoints in the layout of ProAssist and its DST extension decide here as they do there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from proassist_lit.commands.export import load_assistant
from proassist_lit.commands.main import main
from proassist_lit.composition import compose
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import TrainMode
from proassist_lit.model.lora import merged
from proassist_lit.objectives import ObjectiveKind
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import Strategy
from tests.app import REPO_CONF
from tests.exchange.checkpoints import (
    ATTENTION,
    HIDDEN,
    Tensors,
    config_json,
    draw,
    full_checkpoint,
    head,
    lora_checkpoint,
    lora_round,
    make_base,
    named,
    projector,
    read_head,
)
from tests.exchange.fakes import base_folder, make_run, settings, stream
from tests.fakes import dialogue, random_features


@torch.no_grad()
def not_talking(base: Path, weights: Tensors, beside: Tensors, model: AssistantModel) -> Tensor:
    """(F,) P(not talk) at every frame of the dialogue, as the reference computes it."""
    assert model.chat is not None
    sequence = build_sequence(
        read_script(dialogue().without_updates()),
        model.chat,
        num_tokens_per_img=1,
        max_seq_len=4096,
    )
    lm = LlamaForCausalLM.from_pretrained(base)
    lm.load_state_dict(weights)
    table = lm.get_input_embeddings()
    embeds = table(sequence.input_ids.clamp(max=table.num_embeddings - 1))
    get = beside.get
    x = F.gelu(
        F.linear(
            random_features().float(), get("mm_projector.0.weight"), get("mm_projector.0.bias")
        )
    )
    x = F.linear(x, get("mm_projector.2.weight"), get("mm_projector.2.bias"))
    embeds[sequence.image_mask] = x.flatten(0, 1)
    out = lm(inputs_embeds=embeds[None], output_hidden_states=True)
    at = sequence.decision_positions
    own = {n.removeprefix("binary_decision_head."): t for n, t in beside.items() if "binary" in n}
    if not own:
        return out.logits[0, at].softmax(-1)[:, model.chat.silent_id]
    return read_head(own, out.hidden_states[-1][0, at]).sigmoid()


def forced_speaking(model: AssistantModel) -> Tensor:
    """(F,) P(speak) with the reference as context."""
    from proassist_lit.streaming.teacher import teacher_force

    assert model.chat is not None
    sequence = build_sequence(
        read_script(dialogue().without_updates()),
        model.chat,
        num_tokens_per_img=1,
        max_seq_len=4096,
    )
    return teacher_force(model, sequence, random_features().float()).speak_probs


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("make", [full_checkpoint, lora_checkpoint])
def test_speaking_is_one_minus_not_talking(make: Any, kind: str, tmp_path: Path) -> None:
    folder, weights, beside = make(tmp_path, kind)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0

    model, about = load_assistant(tmp_path / "in")
    want = not_talking(tmp_path / "base", weights, beside, model)
    usual = compose(["data=proassist", "data.root=x"], conf_dir=REPO_CONF).data
    for files in ("train_files", "val_files", "test_files"):
        assert getattr(about.config.data, files) == getattr(usual, files)
    assert want.max() - want.min() > 0.05
    torch.testing.assert_close(forced_speaking(model), 1 - want, atol=1e-5, rtol=0)
    frames = stream(model).frames
    assert frames[0].speak_prob == pytest.approx(1 - float(want[0]), abs=1e-5)
    config = about.config
    assert about.train == ("lora" if make is lora_checkpoint else "full")
    assert config.model.chat == "llama3"
    assert config.model.head.value == kind
    assert not config.model.dst
    assert config.objective.kind is ObjectiveKind.PER_TOKEN
    assert config.stream.strategy is Strategy.DROP_MIDDLE
    assert config.data.max_seq_len == 2048


def test_without_a_head_the_silent_token_decides(tmp_path: Path) -> None:
    folder, weights, beside = full_checkpoint(tmp_path, "linear")
    beside = {name: tensor for name, tensor in beside.items() if "binary" not in name}
    config_json(folder, tmp_path / "base", use_binary_decision_head=False,
                binary_decision_head_type="mlp",  # of the head that there is not
                img_patch_token_size=0, img_sep_token="<|eot_id|>")  # fmt: skip
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(beside, folder / "mm_projector.bin")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0

    model, about = load_assistant(tmp_path / "in")
    assert about.config.model.decision.value == "silent_token"
    assert about.config.model.separator == "<|eot_id|>"
    want = not_talking(tmp_path / "base", weights, beside, model)
    torch.testing.assert_close(forced_speaking(model), 1 - want, atol=1e-5, rtol=0)


def test_a_frozen_backbone_is_read_from_where_it_came(tmp_path: Path) -> None:
    folder, _, beside = full_checkpoint(tmp_path, "linear")
    (folder / "model.safetensors").unlink()
    config_json(folder, tmp_path / "base", llm_pretrained="gone/away")
    base = tmp_path / "base"
    assert main(["import", str(folder), str(tmp_path / "in"), "--base", str(base)]) == 0
    model, _ = load_assistant(tmp_path / "in")
    weights = LlamaForCausalLM.from_pretrained(base).state_dict()
    want = not_talking(base, weights, beside, model)
    torch.testing.assert_close(forced_speaking(model), 1 - want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("make", [full_checkpoint, lora_checkpoint])
def test_back_in_their_layout_the_tensors_are_theirs(make: Any, kind: str, tmp_path: Path) -> None:
    folder, weights, beside = make(tmp_path, kind)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0
    back = tmp_path / "back"
    assert main(["export", str(tmp_path / "in"), str(back), "--layout", "proassist"]) == 0

    again = torch.load(back / "mm_projector.bin", weights_only=True)
    assert set(again) == set(beside)
    for name, tensor in beside.items():
        torch.testing.assert_close(again[name], tensor, atol=0, rtol=0)
    for name, tensor in load_file(back / "model.safetensors").items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=1e-6)
    assert main(["import", str(back), str(tmp_path / "twice")]) == 0
    one, two = (load_assistant(tmp_path / name)[0] for name in ("in", "twice"))
    assert stream(one) == stream(two)


def test_a_run_with_additions_goes_out_as_their_adapter(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    config = settings(base, TrainMode.LORA)
    config.dst = False
    run, model = make_run(tmp_path / "run", config)
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--layout", "proassist"]) == 0
    tensors = load_file(out / "adapter_model.safetensors")
    theirs = tensors["base_model.model.binary_decision_head.weight"]
    assert torch.equal(theirs, -model.speak_head.net.weight)
    assert set(json.loads((out / "adapter_config.json").read_text())["modules_to_save"]) == {
        "binary_decision_head", "mm_projector",
    }  # fmt: skip
    assert main(["import", str(out), str(tmp_path / "in")]) == 0
    assert stream(load_assistant(tmp_path / "in")[0]) == stream(model)


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}  # fmt: skip


@pytest.mark.parametrize("scaling", [None, LLAMA3], ids=["default", "llama3"])
def test_rotary_positions_are_written_where_their_transformers_reads_them(
    scaling: dict[str, Any] | None, tmp_path: Path
) -> None:
    base = base_folder(tmp_path / "base")
    settings_of_base = json.loads((base / "config.json").read_text())
    settings_of_base["rope_parameters"] = {**(scaling or {}), "rope_theta": 500000.0}
    (base / "config.json").write_text(json.dumps(settings_of_base))
    config = settings(base, TrainMode.FULL)
    config.dst = False
    run, model = make_run(tmp_path / "run", config)
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--layout", "proassist"]) == 0

    written = json.loads((out / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]) == (500000.0, scaling)
    assert main(["import", str(out), str(tmp_path / "in")]) == 0
    again, _ = load_assistant(tmp_path / "in")
    assert again.lm.config.rope_parameters == model.lm.config.rope_parameters
    assert stream(again) == stream(model)


def test_an_output_matrix_that_was_added_to_is_tied_no_more(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", tied=True)
    config = settings(base, TrainMode.LORA)
    config.dst, config.lora = False, replace(config.lora, lm_head=True)
    run, model = make_run(tmp_path / "run", config)
    out = tmp_path / "out"
    assert main(["export", str(run), str(out), "--layout", "proassist", "--merge"]) == 0
    assert main(["import", str(out), str(tmp_path / "in")]) == 0
    again, _ = load_assistant(tmp_path / "in")
    with merged(model.lm):
        head = model.lm.get_output_embeddings().weight
        assert torch.equal(again.lm.get_output_embeddings().weight, head)
        assert not torch.equal(head, model.lm.get_input_embeddings().weight)
    assert stream(again) == stream(model)


def extension_checkpoint(
    tmp_path: Path, *, own_tokenizer: bool, config: bool
) -> tuple[Path, Tensors]:
    """An adapter over a backbone whose matrices grew by ``<image>``, ``[DST]``, ``[ASST]``."""
    base, weights = make_base(tmp_path / "base")
    grown = {
        name: torch.cat([weights[name], draw(3, HIDDEN, seed=70 + i, std=0.4)])
        for i, name in enumerate(("model.embed_tokens.weight", "lm_head.weight"))
    }
    beside = (
        named("mm_projector", projector())
        | named("speaking_decision_head", head("linear", seed=9))
        | named("dst_update_head", head("linear", seed=19))
        | {"dst_generation_head.weight": weights["lm_head.weight"] + 0.5}
    )
    folder = tmp_path / "checkpoint"
    lora_round(folder, ATTENTION, beside | grown, seed=300)
    if config:
        config_json(folder, base, use_speaking_decision_head=True, use_dst_update_head=True,
                    use_separate_generation_heads=True)  # fmt: skip
    else:
        path = folder / "adapter_config.json"
        path.write_text(path.read_text().replace('"gone"', json.dumps(str(base))))
    if own_tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<image>", "[DST]", "[ASST]"], special_tokens=True)
        tokenizer.save_pretrained(folder)
    return folder, grown | beside


@pytest.mark.parametrize("config", [False, True], ids=["adapter alone", "config.json"])
@pytest.mark.parametrize("own_tokenizer", [False, True])
@torch.no_grad()
def test_the_extension_comes_in_as_it_is(own_tokenizer: bool, config: bool, tmp_path: Path) -> None:
    folder, tensors = extension_checkpoint(tmp_path, own_tokenizer=own_tokenizer, config=config)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0
    model, about = load_assistant(tmp_path / "in")

    assert about.config.model.chat == "dst_ext"
    tokenizer = model.chat.tokenizer
    rows = len(tensors["lm_head.weight"])
    ids = tokenizer.convert_tokens_to_ids(["<image>", "[DST]", "[ASST]"])
    assert ids == [rows - 3, rows - 2, rows - 1]
    assert torch.equal(model.lm.get_input_embeddings().weight, tensors["model.embed_tokens.weight"])
    speak, dst = model.speak_head.net, model.dst_head.net  # neither is negated
    assert torch.equal(speak.weight, tensors["speaking_decision_head.weight"])
    assert torch.equal(dst.bias, tensors["dst_update_head.bias"])
    matrix, theirs = model.dst_output_head.weight, tensors["dst_generation_head.weight"]
    assert torch.equal(matrix[: len(theirs)], theirs)  # made before the tokens were added
    hidden = draw(200, HIDDEN, seed=5)
    ours = model.lm_logits(hidden, dst=True).argmax(-1)
    assert torch.equal(ours, F.linear(hidden, theirs).argmax(-1))
    assert any(frame.updates or frame.dst for frame in stream(model).frames)

    back = tmp_path / "back"
    assert main(["export", str(tmp_path / "in"), str(back), "--layout", "proassist"]) == 0
    again = torch.load(back / "mm_projector.bin", weights_only=True)
    assert torch.equal(again["speaking_decision_head.weight"], speak.weight)
    assert main(["import", str(back), str(tmp_path / "twice")]) == 0
    assert stream(load_assistant(tmp_path / "twice")[0]) == stream(model)
