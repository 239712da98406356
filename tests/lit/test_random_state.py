"""Random numbers of training, which go on where they were, in as many processes as there are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from proassist_lit.lit.random_state import RandomState


def test_random_state_that_was_loaded_is_what_is_saved_before_the_first_batch() -> None:
    torch.manual_seed(7)
    loaded = RandomState().state_dict()
    torch.manual_seed(8)
    callback = RandomState()
    callback.load_state_dict(loaded)
    assert torch.equal(callback.state_dict()["generators"][0], loaded["generators"][0])


def test_further_processes_draw_apart() -> None:
    def draws(rank: int) -> torch.Tensor:
        torch.manual_seed(7)
        trainer: Any = SimpleNamespace(global_rank=rank, global_step=0)
        RandomState().on_train_start(trainer, trainer)
        return torch.rand(4)

    torch.manual_seed(7)
    alone = torch.rand(4)
    assert torch.equal(draws(0), alone)
    assert not torch.equal(draws(0), draws(1))
    assert not torch.equal(draws(1), draws(2))


class Process:
    """One of several that goes on from a checkpoint."""

    def __init__(self, checkpoint: dict[str, Any], rank: int, step: int) -> None:
        torch.manual_seed(7)
        self.trainer: Any = SimpleNamespace(global_rank=rank, global_step=step)
        self.callback = RandomState()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.distributed, "is_initialized", lambda: True)
            patch.setattr(torch.distributed, "get_rank", lambda: rank)
            self.callback.load_state_dict(checkpoint)
        self.callback.on_train_start(self.trainer, self.trainer)
        self.kept = self.callback._state

    def draw(self) -> torch.Tensor:
        self.callback.on_train_batch_start(self.trainer, self.trainer, None, 0)
        return torch.rand(4)


def state(seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return RandomState()._state


def test_processes_that_a_checkpoint_has_a_state_of_go_on_from_it() -> None:
    states = [state(1), state(2)]
    checkpoint = {"generators": states[0], "others": states[1:]}
    for rank, seed in enumerate((1, 2)):
        process = Process(checkpoint, rank, 5)
        assert process.kept is states[rank]
        drawn = process.draw()
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(4))


def test_processes_that_a_checkpoint_has_no_state_of_draw_apart() -> None:
    states = [state(1), state(2)]
    checkpoint = {"generators": states[0], "others": states[1:]}
    begun = {"generators": state(7), "others": []}  # as every process begins
    drawn = [
        *(Process(checkpoint, rank, 5).draw() for rank in range(4)),
        Process(begun, 1, 5).draw(),
        Process(begun, 1, 6).draw(),  # not what it drew when it went on from another step
        Process(begun, 0, 5).draw(),
    ]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == len(drawn)


def test_state_of_a_further_process_is_saved_before_its_first_batch() -> None:
    first = state(1)
    process = Process({"generators": first, "others": []}, 1, 5)
    drawn = process.draw()
    again = Process({"generators": first, "others": [process.kept]}, 1, 5)
    assert torch.equal(again.draw(), drawn)
