"""How several devices train one model, in Lightning's terms."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, Strategy

from proassist_lit.errors import ConfigError
from proassist_lit.lit.sharded_strategy import ShardedStrategy
from proassist_lit.sweep.launcher import is_multi_process
from proassist_lit.trainer_config import Parallel, TrainerConfig


def build_strategy(trainer: TrainerConfig) -> Strategy | str:
    """The strategy of a run; ``auto`` for one device."""
    if trainer.strategy is Parallel.FSDP2:
        if trainer.devices == "auto":
            raise ConfigError(
                "trainer.strategy=fsdp2 needs a number of devices; set trainer.devices to the "
                "devices of a machine."
            )
        return ShardedStrategy(int(trainer.devices) * trainer.num_nodes)
    if trainer.strategy is Parallel.DDP or is_multi_process(trainer):
        # Buffers are constants here. A batch without a span of a kind leaves that head unused.
        return DDPStrategy(
            broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
        )
    return "auto"
