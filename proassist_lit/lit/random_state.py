"""Random numbers of training that a resumed run goes on with."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

_APART = 1000
"""Distance of the seeds of two steps: more than there are processes."""


class RandomState(L.Callback):
    """Keeps torch's random state as it was after the last optimizer step; validation changes none.

    The order of the data does not hang on it: that is a function of seed and epoch. Dropout does.
    Each of several processes has a state of its own: it begins with the seed and its rank, or all
    would drop the same. So does one that the checkpoint has no state of, as there were fewer.
    """

    def __init__(self) -> None:
        self._state = _state()
        self._to_restore: list[Tensor] | None = None
        self._before_validation: list[Tensor] = []
        self._num_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """State of every generator: the CPU's, then that of each device; the other processes'."""
        states = [self._state]
        if dist.is_initialized():
            states *= dist.get_world_size()
            dist.all_gather_object(states, self._state)
        return {"generators": states[0], "others": states[1:]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there with the next batch, if there is a state of this process."""
        states = [state_dict["generators"], *state_dict.get("others", ())]
        rank = dist.get_rank() if dist.is_initialized() else 0
        if rank < len(states):
            self._to_restore = self._state = states[rank]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the further processes of a new run draw apart; the first draws as one alone.

        Those that are new to a run that goes on draw apart from its beginning, too.
        """
        if trainer.global_rank > 0:
            step = trainer.global_step if self._to_restore is None else 0
            torch.manual_seed(torch.initial_seed() + trainer.global_rank + _APART * step)
            if self._to_restore is None:
                self._state = _state()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restore, if training was resumed; note the state at the first batch."""
        if self._to_restore is not None:
            _restore(self._to_restore)
            self._to_restore = None
        if trainer.global_step != self._num_steps or trainer.global_step == 0 == batch_idx:
            self._note(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Note the state after a step: validation, which comes now, may be where training stops."""
        if trainer.global_step != self._num_steps:
            self._note(trainer)

    def _note(self, trainer: L.Trainer) -> None:
        self._num_steps, self._state = trainer.global_step, _state()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the state before validation."""
        self._before_validation = _state()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore it."""
        _restore(self._before_validation)


def _state() -> list[Tensor]:
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _restore(states: list[Tensor]) -> None:
    cpu, *devices = states
    torch.set_rng_state(cpu)
    # Another number of devices than before: what there is goes on.
    for device, state in zip(range(torch.cuda.device_count()), devices, strict=False):
        torch.cuda.set_rng_state(state, device)
