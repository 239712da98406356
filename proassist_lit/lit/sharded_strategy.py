"""FSDP2 in Lightning's terms, with checkpoints that are those of one process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import chain
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from proassist_lit.errors import CheckpointError
from proassist_lit.lit.module import AssistantModule
from proassist_lit.lit.weight_average import weights_of_training
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.checkpoint import PREFIX, saved_names


class ShardedStrategy(ModelParallelStrategy):
    """Saves one file that any number of processes goes on from, and goes on from theirs.

    Lightning's strategy numbers the optimizer's parameters in the order of the model, where an
    optimizer alone takes its own order, and it wants all weights, a frozen backbone's included.

    Args:
        num_processes: processes that hold the shards.
        process_group_backend: what they talk through; None for Lightning's choice.
        timeout: how long one waits for the others; None for torch's choice.
    """

    def __init__(
        self,
        num_processes: int,
        *,
        process_group_backend: str | None = None,
        timeout: timedelta | None = None,
    ) -> None:
        super().__init__(
            data_parallel_size=num_processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As the optimizer of one process gives it; empty but for the first process."""
        state = super().optimizer_state(optimizer)
        return renumbered(state, None) if state else state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Give each process its shards of weights and optimizer state; return the checkpoint.

        Raises:
            CheckpointError: weights of the model are missing.
        """
        module = self.lightning_module
        assert isinstance(module, AssistantModule)
        path = self.broadcast(checkpoint_path)
        saved = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
        check_complete(str(path), saved["state_dict"], module.model)
        from_first = StateDictOptions(
            full_state_dict=True, broadcast_from_rank0=True, strict=False
        )  # what was left out stays as the model has it
        weights = saved["state_dict"] | weights_of_training(saved, module)
        set_model_state_dict(module, weights, options=from_first)
        names = {parameter: name for name, parameter in module.named_parameters()}
        for optimizer, state in zip(self.optimizers, saved["optimizer_states"], strict=True):
            own = [names[p] for group in optimizer.param_groups for p in group["params"]]
            set_optimizer_state_dict(module, optimizer, renumbered(state, own), options=from_first)
        return saved


def check_complete(path: str, state: Mapping[str, Any], model: AssistantModel) -> None:
    """See that a checkpoint holds all that is saved of ``model``.

    Raises:
        CheckpointError: it does not.
    """
    missing = sorted({f"{PREFIX}{name}" for name in saved_names(model)} - state.keys())
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} tensors of the model are missing, the first is {missing[0]}; "
            "go on with the configuration that it was trained with."
        )


def renumbered(state: Mapping[str, Any], names: list[str] | None) -> dict[str, Any]:
    """The state of an optimizer with other keys for its parameters, in the order it has them in.

    Args:
        state: as ``torch.optim.Optimizer.state_dict`` gives it.
        names: the new keys; None for 0, 1, 2, ...

    Raises:
        CheckpointError: there are more keys, or fewer.
    """
    groups = state["param_groups"]
    old = list(chain.from_iterable(group["params"] for group in groups))
    new: list[Any] = list(range(len(old))) if names is None else list(names)
    if len(new) != len(old):
        raise CheckpointError(
            f"the checkpoint's optimizer trains {len(old)} tensors, this run's {len(new)}; go on "
            "with the same model.train."
        )
    keys = dict(zip(old, new, strict=True))
    return {
        "state": {keys[key]: values for key, values in state["state"].items()},
        "param_groups": [
            {**group, "params": [keys[key] for key in group["params"]]} for group in groups
        ],
    }
