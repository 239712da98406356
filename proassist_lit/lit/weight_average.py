"""A moving average of the weights, which is validated, kept as the model, and evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from proassist_lit.errors import ConfigError


class WeightAverage(L.Callback):
    """Averages what is trained over the optimizer steps, exponentially; training does not see it.

    The average stands in the model's place during validation and after training, and as the
    model's weights in every checkpoint; those that training goes on with lie beside it.

    Lightning has such a callback as well. It copies frozen backbones, too, streams at validation
    get the other weights from it, and after Ctrl-C during validation the two have changed places.

    It must come after the callbacks that answer streams with the model: they share a hook.

    Args:
        decay: share of the average that an optimizer step leaves, in (0, 1). At first it is less,
            (1 + n) / (10 + n) after n steps, or the weights that training began with would weigh
            in for too long.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._average: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}  # of training, while the average is in their place
        self._loaded: Mapping[str, Any] = {}
        self._trained: dict[str, nn.Parameter] = {}
        self._num_steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, or go on with both as they were.

        Raises:
            ConfigError: the weights are in parts on several devices.
        """
        named = pl_module.named_parameters()
        self._trained = {name: p for name, p in named if p.requires_grad}
        if any(hasattr(p, "full_tensor") for p in self._trained.values()):
            raise ConfigError(
                "trainer.ema_decay does not go with weights that are in parts on several devices; "
                "set it to 0, or train with a strategy that keeps them whole (ddp)."
            )
        self._num_steps = trainer.global_step
        if self._loaded:
            self._put_in_place(self._loaded["weights"])
        before: Mapping[str, Tensor] = self._loaded.get("average", self._trained)
        self._average = {
            name: before[name].detach().to(p.device, _dtype(p), copy=True)
            for name, p in self._trained.items()
        }
        self._loaded = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """After an optimizer step, move the average."""
        if trainer.global_step == self._num_steps:
            return
        self._num_steps = num_steps = trainer.global_step
        decay = min(self._decay, (1 + num_steps) / (10 + num_steps))
        weights: list[Any] = [
            self._trained[name].detach().to(a.dtype) for name, a in self._average.items()
        ]
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self._average.values()), weights, num_steps)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average in the place of the weights."""
        if trainer.state.fn == "fit":
            self._show_average()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the weights back."""
        if trainer.state.fn == "fit":
            self._put_in_place(self._weights)
            self._weights = {}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average as the model."""
        self._show_average()

    def state_dict(self) -> dict[str, Any]:
        """The weights of training, and the average in full precision."""
        if not self._average:
            return dict(self._loaded)
        weights = self._weights or {name: p.detach() for name, p in self._trained.items()}
        return {"weights": weights, "average": self._average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, as soon as the model is on its device."""
        self._loaded = state_dict

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the average be the model of ``checkpoint``."""
        averages = {id(p): self._average[name] for name, p in self._trained.items()}
        for name, p in pl_module.named_parameters(remove_duplicate=False):  # tied: by both names
            if id(p) in averages:
                checkpoint["state_dict"][name] = averages[id(p)].to(p.dtype)

    def _show_average(self) -> None:
        if not self._average or self._weights:
            return
        self._weights = {name: p.detach().clone() for name, p in self._trained.items()}
        self._put_in_place(self._average)

    @torch.no_grad()
    def _put_in_place(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in weights.items():
            self._trained[name].copy_(tensor)


def weights_of_training(
    checkpoint: Mapping[str, Any], module: L.LightningModule
) -> dict[str, Tensor]:
    """What a run without an average goes on with, where the checkpoint's model is one.

    A run with an average puts them in place itself.

    Args:
        checkpoint: of any run.
        module: of the run that goes on.

    Returns:
        Weights by name, a tied one by all of its names; empty where the model itself is meant.
    """
    states = checkpoint.get("callbacks", {})
    weights = states.get(WeightAverage.__qualname__, {}).get("weights", {})
    if not weights:
        return {}
    own: list[L.Callback] = module.trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, WeightAverage) for callback in own):
        return {}
    found = {id(p): weights[name] for name, p in module.named_parameters() if name in weights}
    named = module.named_parameters(remove_duplicate=False)
    return {name: found[id(p)] for name, p in named if id(p) in found}


def room_for_average(trained: Iterable[nn.Parameter], device: torch.device) -> list[Tensor]:
    """Memory on ``device`` as large as the average of ``trained``; its numbers mean nothing."""
    return [torch.empty_like(p, dtype=_dtype(p), device=device) for p in trained]


def _dtype(parameter: nn.Parameter) -> torch.dtype:
    """Of the average: a step is lost in the rounding of 16 bits."""
    return torch.promote_types(parameter.dtype, torch.float32)
