"""The parts of a model at the start of a run: what trains, and what would not though it should."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from torch import nn

from proassist_lit.errors import ConfigError
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.four_bits import num_weights
from proassist_lit.model.new_rows import EmbeddingRows, OutputRows
from proassist_lit.model.weights_type import trained_type
from proassist_lit.objectives import ObjectiveConfig

_WEIGHTS = {
    "speak_head": ("speaking_binary_weight", "decides when to speak", "model.decision"),
    "dst_head": ("dst_binary_weight", "decides when to update the state", "model.dst=false"),
    "dst_output_head": ("dst_gen_weight", "writes the updates", "model.dst_output_head=false"),
}
"""Of each head: the weight of the loss that trains it, what it is for, how to do without."""


@dataclass
class Part:
    """Some modules of a model, counted together."""

    name: str
    parameters: int = 0
    trained: int = 0
    dtypes: set[str] = field(default_factory=set)


def model_parts(model: AssistantModel) -> list[Part]:
    """The parts of a model; tied matrices are counted once, as embeddings."""
    parts: dict[str, Part] = {}
    for name, parameter in _named_parts(model):
        part = parts.setdefault(name, Part(name))
        part.dtypes.add(str(parameter.dtype).removeprefix("torch."))
        part.parameters += num_weights(parameter)
        part.trained += num_weights(parameter) if parameter.requires_grad else 0
    return list(parts.values())


def _named_parts(model: AssistantModel) -> Iterator[tuple[str, nn.Parameter]]:
    lm: Any = model.lm
    table, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    rows = {id(m.rows) for m in (table, head) if isinstance(m, EmbeddingRows | OutputRows)}
    outer = {id(p): "output matrix" for p in head.parameters()}
    outer |= {id(p): "embeddings" for p in table.parameters()}
    for name, parameter in lm.named_parameters():
        if id(parameter) in rows:
            yield "rows of new tokens", parameter
        elif ".lora_" in name:
            yield "low-rank additions", parameter
        else:
            yield outer.get(id(parameter), "layers"), parameter
    for child, module in model.named_children():
        if child != "lm":
            for parameter in module.parameters():
                yield child.replace("_", " "), parameter


def parts_table(model: AssistantModel) -> Table:
    """What a terminal shows of a model before training."""
    table = Table(box=box.SIMPLE_HEAD)
    for column, justify in (
        ("part", "left"), ("parameters", "right"), ("trained", "right"), ("type", "left"),
    ):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    parts = model_parts(model)
    for part in parts:
        table.add_row(
            part.name, f"{part.parameters:,}", f"{part.trained:,}" if part.trained else "–",
            ", ".join(sorted(part.dtypes)), style="" if part.trained else "dim",
        )  # fmt: skip
    totals = (sum(part.parameters for part in parts), sum(part.trained for part in parts))
    table.add_section()
    table.add_row("all", *(f"{total:,}" for total in totals))
    return table


def check_heads_train(
    model: AssistantModel,
    objective: ObjectiveConfig,
    *,
    begins_trained: bool,
    new: Collection[str] = (),
) -> None:
    """Refuse a run after which a head would decide or write that was never trained.

    Args:
        model: as it is trained.
        objective: gives the weights of the losses.
        begins_trained: whether the heads come from an earlier training: to leave one as it is may
            then be meant.
        new: heads that begin untrained all the same.

    Raises:
        ConfigError: names every such module with its remedy.
    """
    faults = []
    for name, module in model.named_children():
        parameters = list(module.parameters())
        if name == "lm" or not parameters:
            continue
        if not all(parameter.requires_grad for parameter in parameters):
            faults.append(
                f"{name} would not train: its parameters are frozen; let them require a gradient."
            )
        elif name in _WEIGHTS and (name in new or not begins_trained):
            weight, purpose, without = _WEIGHTS[name]
            if getattr(objective, weight) == 0:
                faults.append(
                    f"{name} would not train, because objective.{weight} is 0, yet it {purpose} in "
                    f"streams; set objective.{weight} above 0, do without the head ({without}), or "
                    "begin with a trained one (model.init_from)."
                )
    if faults:
        raise ConfigError("\n".join(faults))


def check_trained_types(model: AssistantModel) -> None:
    """Refuse to train 16-bit weights that were to be left as they are.

    Raises:
        ConfigError: names the parts with both remedies.
    """
    coarse = {
        part
        for part, parameter in _named_parts(model)
        if parameter.requires_grad and parameter.dtype is not trained_type(parameter)
    }
    if coarse:
        raise ConfigError(
            f"model.dtype=bfloat16: {', '.join(sorted(coarse))} would train in bfloat16, which "
            "rounds small steps away; set model.train=lora or frozen, or model.dtype=float32 with "
            "trainer.precision=bf16-mixed (or bf16-true, if all is to be rounded)."
        )


def check_gradients(model: AssistantModel) -> None:
    """Refuse, after a backward pass, projector and heads that the loss did not reach.

    Raises:
        ConfigError: names every such module.
    """
    silent = sorted(
        {
            name.partition(".")[0]
            for name, parameter in model.named_parameters()
            if parameter.grad is None and parameter.requires_grad and not name.startswith("lm.")
        }
    )
    if silent:
        raise ConfigError(
            f"{', '.join(silent)} would not train: the loss gives no gradient. A setting of model "
            "or objective leaves it out; switch the head off, or choose an objective that uses it."
        )
