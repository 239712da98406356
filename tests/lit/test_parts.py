from __future__ import annotations

from typing import Any

import pytest
import torch
from rich.console import Console

from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.errors import ConfigError
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.parts import (
    check_gradients,
    check_heads_train,
    check_trained_types,
    model_parts,
    parts_table,
)
from proassist_lit.lit.settings_checks import (
    check_positions,
    check_stream_length,
    check_summaries,
    check_turns,
)
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.config import Decision, LoraConfig, ModelConfig
from proassist_lit.model.lora import add_lora
from proassist_lit.model.weights_type import cast_weights
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.fakes import tiny_model, word_chat


def test_parts_count_every_parameter_once() -> None:
    model = tiny_model(dst_output_head=True)
    add_lora(model.lm, LoraConfig(rank=2, alpha=1.0), [5, 6])
    model.projector.float()
    parts = {part.name: part for part in model_parts(model)}

    assert sum(part.parameters for part in parts.values()) == sum(
        parameter.numel() for parameter in model.parameters()
    )
    table = model.lm.get_input_embeddings().base
    assert parts["embeddings"].parameters == table.weight.numel()  # and the output matrix is tied
    assert parts["rows of new tokens"].parameters == 2 * 16
    assert {name for name, part in parts.items() if part.trained} == {
        "rows of new tokens", "low-rank additions", "projector", "speak head", "dst head",
        "dst output head",
    }  # fmt: skip
    assert parts["projector"].dtypes == {"float32"}
    console = Console(width=100, record=True)
    console.print(parts_table(model))
    text = console.export_text()
    assert "layers                    3,920         –   float64" in text
    assert "speak head                   17        17   float64" in text


def check(model: AssistantModel, *, begins_trained: bool = False, **weights: float) -> None:
    check_heads_train(model, ObjectiveConfig(**weights), begins_trained=begins_trained)


def test_heads_that_would_not_train_are_named_with_the_remedy() -> None:
    model = tiny_model(dst_output_head=True)
    check(model)
    with pytest.raises(ConfigError) as fault:
        check(model, speaking_binary_weight=0.0, dst_binary_weight=0.0, dst_gen_weight=0.0)
    lines = str(fault.value).splitlines()
    assert len(lines) == 3
    assert (
        "speak_head would not train, because objective.speaking_binary_weight is 0, yet it dec"
        in lines[0]
    )
    assert "do without the head (model.dst=false)" in lines[1]
    assert "dst_output_head would not train" in lines[2]
    check(model, begins_trained=True, speaking_binary_weight=0.0)
    objective = ObjectiveConfig(speaking_binary_weight=0.0, dst_binary_weight=0.0)
    with pytest.raises(ConfigError, match=r"^dst_head would not train"):
        check_heads_train(model, objective, begins_trained=True, new=["dst_head"])

    model.projector[0].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"^projector would not train: its parameters are froz"):
        check(model, begins_trained=True)


def test_a_decision_by_tokens_has_no_head_to_train() -> None:
    model = tiny_model(decision=Decision.SILENT_TOKEN, chat=word_chat(), dst=False)
    check(model, speaking_binary_weight=0.0, dst_binary_weight=0.0)


def test_heads_that_the_loss_does_not_reach_are_named() -> None:
    model = tiny_model()
    module = AssistantModule(model, None, None, num_steps=1)  # type: ignore[arg-type]
    hidden = torch.randn(3, 16, dtype=torch.float64)
    model.speak_head(hidden).sum().backward()
    with pytest.raises(ConfigError, match=r"dst_head, projector would not train: the loss gives"):
        module.on_after_backward()
    (model.dst_head(hidden).sum() + model.project(torch.randn(1, 6)).sum()).backward()
    check_gradients(model)
    module.on_after_backward()
    model.zero_grad()
    module.on_after_backward()  # looked at once


def test_two_heads_to_speak_are_one_part_and_each_must_be_reached() -> None:
    model = tiny_model(decision=Decision.INFORMATIVE_RELEVANCE, dst=False)
    assert {part.name: part.trained for part in model_parts(model)}["speak head"] == 34
    with pytest.raises(ConfigError, match=r"^speak_head would not train, because objective\.speak"):
        check(model, speaking_binary_weight=0.0)

    hidden = torch.randn(3, 16, dtype=torch.float64)
    (model.speak_head.informative(hidden).sum() + model.project(torch.randn(1, 6)).sum()).backward()
    with pytest.raises(ConfigError, match=r"^speak_head would not train: the loss gives"):
        check_gradients(model)


def test_weights_of_sixteen_bits_are_not_trained_by_mistake() -> None:
    model = tiny_model()
    check_trained_types(model)
    cast_weights(model.lm, torch.bfloat16)
    with pytest.raises(ConfigError, match=r"bfloat16: embeddings, layers would train in bfloat16"):
        check_trained_types(model)
    model.lm.requires_grad_(False)
    check_trained_types(model)


def test_packed_weights_are_not_cast() -> None:
    packed = torch.arange(256, dtype=torch.uint8)
    module = torch.nn.Linear(2, 2)
    module.packed = torch.nn.Parameter(packed.clone(), requires_grad=False)
    cast_weights(module, torch.bfloat16)
    assert module.packed.dtype is torch.uint8
    assert torch.equal(module.packed, packed)
    assert module.weight.dtype is torch.bfloat16


def test_streams_that_go_on_behind_what_was_learnt_are_told_of() -> None:
    def settings(max_context: int) -> RunConfig:
        stream = StreamConfig(max_context=max_context, reserve=512)
        return RunConfig(data=DataConfig(max_seq_len=2048), stream=stream)

    check_stream_length(settings(2560))
    with pytest.warns(
        UserWarning, match=r"max_context=2561: .* to 2049 .*Set stream\.max_context=2560"
    ):
        check_stream_length(settings(2561))


def test_summaries_that_streams_cut_off_are_told_of() -> None:
    def settings(taught: int, written: int, strategy: Strategy) -> RunConfig:
        return RunConfig(
            splitting=SplitConfig(method=SplitMethod.SUMMARIZE, max_summary_tokens=taught),
            stream=StreamConfig(strategy=strategy, max_summary_tokens=written),
        )

    check_summaries(settings(96, 96, Strategy.SUMMARIZE))
    check_summaries(settings(96, 97, Strategy.SUMMARIZE))
    check_summaries(settings(97, 96, Strategy.DROP_ALL))  # writes none
    with pytest.warns(UserWarning, match=r"max_summary_tokens=97: .*off at 96 .*stream\.reserve"):
        check_summaries(settings(97, 96, Strategy.SUMMARIZE))
    assert SplitConfig().max_summary_tokens == StreamConfig().max_summary_tokens


def test_streams_that_decide_where_silence_was_not_learnt_are_told_of() -> None:
    def settings(turn_frames: int, stride: int) -> RunConfig:
        return RunConfig(
            objective=ObjectiveConfig(turn_frames=turn_frames), stream=StreamConfig(stride=stride)
        )

    check_turns(settings(1, 1))
    check_turns(settings(4, 4))
    with pytest.warns(UserWarning, match=r"turn_frames=4: .* at every 1 .*Set stream\.stride=4"):
        check_turns(settings(4, 1))
    kind = ObjectiveKind.PER_TOKEN
    with pytest.warns(UserWarning, match=r"turn_frames=2 has no effect with .*kind=per_token, whi"):
        check_turns(RunConfig(objective=ObjectiveConfig(kind=kind, turn_frames=2)))


@pytest.mark.parametrize(
    ("longest", "context", "asked", "keys"),
    [
        (600, 600, None, ""),
        (601, 600, r"data\.max_seq_len=601", r"data\.max_seq_len"),
        (600, 601, r"stream\.max_context=601", r"stream\.max_context"),
        (700, 601, r"data\.max_seq_len=700 and stream\.max_context=601",
         r"data\.max_seq_len and stream\.max_context"),
    ],
)  # fmt: skip
def test_positions_that_a_backbone_was_not_pretrained_on_are_told_of(
    longest: int, context: int, asked: str | None, keys: str
) -> None:
    model = tiny_model()
    model.lm.config.max_position_embeddings = 600
    assert model.context_limit is None  # a rotation goes on for ever
    stream = StreamConfig(max_context=context, reserve=256)

    def settings(**changes: Any) -> RunConfig:
        return RunConfig(data=DataConfig(max_seq_len=longest), model=ModelConfig(**changes),
                         stream=stream)  # fmt: skip

    check_positions(settings(), model)  # from scratch: it knows what it is trained on
    if asked is None:
        check_positions(settings(backbone="some/llama"), model)
        return
    message = rf"backbone=some/llama was pretrained on 600 positions, but {asked}: .*{keys} to at"
    with pytest.warns(UserWarning, match=message):
        check_positions(settings(backbone="some/llama"), model)
    with pytest.warns(UserWarning, match=r"init_from=some/where was pre"):
        check_positions(settings(init_from="some/where"), model)
    del model.lm.config.max_position_embeddings  # as those without positions at all
    check_positions(settings(backbone="some/llama"), model)
