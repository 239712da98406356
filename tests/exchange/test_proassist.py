"""Checkpoints in the layout of ProAssist and its DST extension, made here, tensor by tensor."""

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
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, ModelConfig, TinyConfig, TrainMode
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.sequence.builder import build_sequence
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.config import Strategy
from tests.exchange.fakes import base_folder, make_run, settings, stream
from tests.fakes import VISION_SIZE, dialogue, random_features

Captured = pytest.CaptureFixture[str]
Tensors = dict[str, Tensor]
HIDDEN, RANK, ALPHA = 16, 2, 3.0


def draw(*shape: int, seed: int, std: float = 0.5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std


def head(kind: str, *, seed: int) -> Tensors:
    """Of ProAssist's modules ``linear`` and ``mlp``."""
    if kind == "linear":
        return {"weight": draw(1, HIDDEN, seed=seed), "bias": draw(1, seed=seed + 1)}
    half = HIDDEN // 2
    return {
        "0.weight": draw(half, HIDDEN, seed=seed), "0.bias": draw(half, seed=seed + 1),
        "2.weight": draw(1, half, seed=seed + 2), "2.bias": draw(1, seed=seed + 3),
    }  # fmt: skip


def read_head(tensors: Tensors, hidden: Tensor) -> Tensor:
    """(F, D) to (F,) raw scores of a head."""
    if "weight" in tensors:
        return F.linear(hidden, tensors["weight"], tensors["bias"])[:, 0]
    inner = F.gelu(F.linear(hidden, tensors["0.weight"], tensors["0.bias"]))
    return F.linear(inner, tensors["2.weight"], tensors["2.bias"])[:, 0]


def projector() -> Tensors:
    return {
        "0.weight": draw(HIDDEN, VISION_SIZE, seed=1), "0.bias": draw(HIDDEN, seed=2),
        "2.weight": draw(HIDDEN, HIDDEN, seed=3), "2.bias": draw(HIDDEN, seed=4),
    }  # fmt: skip


def named(module: str, tensors: Tensors) -> Tensors:
    return {f"{module}.{name}": tensor for name, tensor in tensors.items()}


def config_json(folder: Path, base: Path, **changes: Any) -> None:
    data = json.loads((base / "config.json").read_text()) | {
        "architectures": ["ProActLlamaForCausalLM"], "llm_pretrained": str(base),
        "vision_hidden_size": VISION_SIZE, "use_img_cls_token": True, "img_patch_token_size": 0,
        "img_sep_token": "", "max_seq_len": 2048, "exceed_context_handling": "drop_middle",
        "use_binary_decision_head": True, "binary_decision_head_type": "linear",
        "binary_loss_weight": 1.0, "w2t_logit_weight": 1.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(data | changes))


def lora_round(
    folder: Path, layers: tuple[str, ...], beside: Tensors, *, seed: int, rows: int = 0
) -> Tensors:
    """Write an adapter; return what it adds to each weight."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"q_proj": (16, 16), "v_proj": (8, 16), "down_proj": (16, 20), "lm_head": (rows, 16)}
    files, added = {}, {}
    for number, layer in enumerate(layers):
        out, into = sizes[layer.rpartition(".")[2]]
        a, b = draw(RANK, into, seed=seed + number), draw(out, RANK, seed=seed + 50 + number)
        files |= {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
        added[f"{layer}.weight"] = b @ a * (ALPHA / RANK)
    tensors = {f"base_model.model.{name}": t for name, t in (files | beside).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": "gone",
                "r": RANK,
                "lora_alpha": ALPHA,
                "lora_dropout": 0.05,
                "inference_mode": True,
                "target_modules": sorted({layer.rpartition(".")[2] for layer in layers}),
                "modules_to_save": sorted({name.partition(".")[0] for name in beside}) or None,
            }
        )
    )
    return added


ATTENTION = tuple(f"model.layers.{i}.self_attn.{p}" for i in (0, 1) for p in ("q_proj", "v_proj"))
MLP = tuple(f"model.layers.{i}.mlp.down_proj" for i in (0, 1))


def make_base(folder: Path) -> tuple[Path, Tensors]:
    base = base_folder(folder)
    state = LlamaForCausalLM.from_pretrained(base).state_dict()
    return base, {name: tensor.clone() for name, tensor in state.items()}


def full_checkpoint(tmp_path: Path, kind: str) -> tuple[Path, Tensors, Tensors]:
    """Folder, backbone, and the modules beside it."""
    base, weights = make_base(tmp_path / "base")
    weights = {n: t + draw(*t.shape, seed=len(n), std=0.02) for n, t in weights.items()}
    beside = named("mm_projector", projector()) | named("binary_decision_head", head(kind, seed=9))
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config_json(folder, base, binary_decision_head_type=kind)
    save_file(weights | beside, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(beside, folder / "mm_projector.bin")
    return folder, weights, beside


def split_checkpoint(tmp_path: Path, kind: str) -> tuple[Path, Tensors, Tensors]:
    """What is beside the backbone in a file of its own."""
    folder, weights, beside = full_checkpoint(tmp_path, kind)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, weights, beside


def lora_checkpoint(tmp_path: Path, kind: str) -> tuple[Path, Tensors, Tensors]:
    """Two earlier rounds, and the last."""
    base, weights = make_base(tmp_path / "base")
    beside = named("mm_projector", projector()) | named("binary_decision_head", head(kind, seed=9))
    earlier = {name: tensor + 1 for name, tensor in beside.items() if "mm_proj" in name}
    folder = tmp_path / "checkpoint"
    rows = len(weights["lm_head.weight"])
    rounds = [
        lora_round(folder / "adapter_0", ATTENTION, earlier, seed=100),
        lora_round(folder / "adapter_1", (*ATTENTION, *MLP), earlier, seed=200),
        lora_round(folder, (*ATTENTION, "lm_head"), beside, seed=300, rows=rows),
    ]
    for added in rounds:
        for name, tensor in added.items():
            weights[name] = weights[name] + tensor
    config_json(
        folder, base, binary_decision_head_type=kind, training_args={"llm_train_mode": "lora"}
    )
    return folder, weights, beside


@torch.no_grad()
def not_talking(base: Path, weights: Tensors, beside: Tensors, model: AssistantModel) -> Tensor:
    """(F,) P(not talk) at every frame of the dialogue, as the reference computes it."""
    assert model.chat is not None
    sequence = build_sequence(
        read_script(dialogue()), model.chat, num_tokens_per_img=1, max_seq_len=4096
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
        read_script(dialogue()), model.chat, num_tokens_per_img=1, max_seq_len=4096
    )
    return teacher_force(model, sequence, random_features().float()).speak_probs


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("make", [full_checkpoint, lora_checkpoint])
def test_speaking_is_one_minus_not_talking(make: Any, kind: str, tmp_path: Path) -> None:
    folder, weights, beside = make(tmp_path, kind)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 0

    model, about = load_assistant(tmp_path / "in")
    want = not_talking(tmp_path / "base", weights, beside, model)
    assert about.config.data.val_files == "*/prepared/dialog-klg-sum_val_L4096_I1.jsonl"
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


def extension_checkpoint(tmp_path: Path, *, own_tokenizer: bool) -> tuple[Path, Tensors]:
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
    config_json(folder, base, use_speaking_decision_head=True, use_dst_update_head=True,
                use_separate_generation_heads=True)  # fmt: skip
    if own_tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<image>", "[DST]", "[ASST]"], special_tokens=True)
        tokenizer.save_pretrained(folder)
    return folder, grown | beside


@pytest.mark.parametrize("own_tokenizer", [False, True])
@torch.no_grad()
def test_the_extension_comes_in_as_it_is(own_tokenizer: bool, tmp_path: Path) -> None:
    folder, tensors = extension_checkpoint(tmp_path, own_tokenizer=own_tokenizer)
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


def test_every_fault_is_in_one_list(tmp_path: Path, capsys: Captured) -> None:
    folder, weights, beside = full_checkpoint(tmp_path, "linear")
    norm = weights.pop("model.norm.weight")
    save_file(
        weights | {"model.extra": norm, "model.layers.0.input_layernorm.weight": norm[:4].clone()},
        folder / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    del beside["mm_projector.2.bias"]
    torch.save(beside | {"mm_projector.9": norm}, folder / "mm_projector.bin")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    for part in (
        "1 missing: model.norm.weight", "1 left over: model.extra",
        "1 of another shape: model.layers.0.input_layernorm.weight: (4,) instead of (16,)",
        "1 missing: projector.2.bias; 1 left over: projector.9",
    ):  # fmt: skip
        assert part in message


def test_faults_of_an_adapter_and_of_the_heads_are_in_one_list(
    tmp_path: Path, capsys: Captured
) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    for round_, drop in (("", "binary_decision_head"), ("adapter_0", "v_proj.lora_B")):
        path = folder / round_ / "adapter_model.safetensors"
        tensors = load_file(path)
        name = next(name for name in tensors if drop in name)
        save_file({n: t for n, t in tensors.items() if n != name}, path)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    assert "adapter_0: its tensors are not those" in message
    assert "self_attn.v_proj.lora_B.weight" in message
    assert "1 missing: speak_head.net." in message


def test_an_earlier_round_with_another_shape_is_refused(tmp_path: Path, capsys: Captured) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    path = folder / "adapter_1/adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    tensors[name] = tensors[name][:, :3].clone()
    save_file(tensors, path)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    message = capsys.readouterr().err
    assert "adapter_1: its tensors" in message
    assert "q_proj.lora_A.weight: (2, 3) instead of (2, 16)" in message


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (full_checkpoint, "model.safetensors"), (lora_checkpoint, "adapter_model.safetensors"),
        (lora_checkpoint, "adapter_0/adapter_model.safetensors"),
        (split_checkpoint, "mm_projector.bin"),
    ],
)  # fmt: skip
def test_a_file_that_is_cut_short_is_refused(
    make: Any, name: str, tmp_path: Path, capsys: Captured
) -> None:
    folder = make(tmp_path, "linear")[0]
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert f"{Path(name).name}: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "in").exists()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("owned",)


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, {"a": "text"}, {"a": [1]}])
def test_a_pickle_that_holds_more_than_tensors_is_refused(
    content: object, tmp_path: Path, capsys: Captured
) -> None:
    folder, _, _ = full_checkpoint(tmp_path, "linear")
    torch.save(content, folder / "mm_projector.bin")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    out, err = capsys.readouterr()
    assert "owned" not in out
    assert "mm_projector.bin: cannot be read as tensors" in err
    assert not (tmp_path / "in").exists()


def test_what_they_have_no_name_for_is_refused(tmp_path: Path, capsys: Captured) -> None:
    tiny = TinyConfig(vocab_size=330, hidden_size=16, num_layers=2, num_heads=2, mlp_size=24)
    run, _ = make_run(tmp_path / "run", ModelConfig(tiny=tiny))
    out = str(tmp_path / "out")
    assert main(["export", str(run), out, "--layout", "proassist"]) == 2
    assert "model.chat is compact, and must be dst_ext. Or write" in capsys.readouterr().err

    base = base_folder(tmp_path / "base")
    run, _ = make_run(tmp_path / "run2", settings(base, TrainMode.LORA, "dst_ext"))
    assert main(["export", str(run), out, "--layout", "proassist"]) == 2
    assert "rows of new tokens were trained beside the adapter; add" in capsys.readouterr().err


def test_two_heads_to_speak_are_none_of_theirs(tmp_path: Path, capsys: Captured) -> None:
    config = replace(
        settings(base_folder(tmp_path / "base"), TrainMode.FULL),
        dst=False, decision=Decision.INFORMATIVE_RELEVANCE,
    )  # fmt: skip
    run, _ = make_run(
        tmp_path / "run", config, objective=ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN)
    )
    assert main(["export", str(run), str(tmp_path / "out"), "--layout", "proassist"]) == 2
    assert "is informative_relevance, two heads where theirs has one. Or" in capsys.readouterr().err


def test_checkpoints_that_cannot_be_streamed_say_why(tmp_path: Path, capsys: Captured) -> None:
    folder, _, _ = lora_checkpoint(tmp_path, "linear")
    config_json(folder, tmp_path / "base", use_img_cls_token=False)
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert "without the class token of a frame" in capsys.readouterr().err
    config_json(folder, tmp_path / "base", llm_pretrained="")
    assert main(["import", str(folder), str(tmp_path / "in")]) == 2
    assert "names no llm_pretrained; give its backbone with --base" in capsys.readouterr().err
