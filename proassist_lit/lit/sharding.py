"""A model whose weights lie in shards on several devices (FSDP2), and the same model whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from proassist_lit.model.assistant import AssistantModel


def shard(model: AssistantModel, mesh: DeviceMesh) -> None:
    """Shard ``model`` in place: layer by layer, so that one at a time is whole; then the rest.

    Args:
        model: whole, on every process.
        mesh: of one dimension, the processes that hold the shards.
    """
    for layer in model.lm.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    """Whether ``shard`` was here."""
    return isinstance(model, FSDPModule)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Hold all weights for a while, so that each process can go its own way.

    Streams are of different lengths: processes that answer them cannot meet at every layer. All
    processes must come here together. Without shards it does nothing.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)
