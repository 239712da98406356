from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from proassist_lit import micro_batches
from proassist_lit.data.collate import collate, pack, split
from proassist_lit.lit.module import AssistantModule
from proassist_lit.micro_batches import (
    compute_losses_in_parts,
    compute_losses_of_shards,
    count_terms,
)
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, compute_losses
from proassist_lit.optimizer_config import OptimizerConfig
from proassist_lit.types import Batch
from tests.fakes import tiny_model
from tests.properties.models import batches, example, gradients, model, terms
from tests.properties.strategies import Case, cases, examples
from tests.properties.test_packed import OBJECTIVES

MEMBERS = batches(cases(max_turns=8, tokens=(1, 5), formats=("dst_ext",)), 4)


@examples(25)
@given(members=MEMBERS, packed=st.booleans(), max_tokens=st.integers(1, 200))
def test_parts_are_batches_of_neighbours_within_the_budget(
    members: Sequence[Case], packed: bool, max_tokens: int
) -> None:
    made = [example(case) for case in members]
    make = pack if packed else collate
    parts = split(make(made), max_tokens)

    start = 0
    for part in parts:
        number = len(part.lengths)
        wanted = make(made[start : start + number])
        for f in fields(Batch):
            ours, theirs = getattr(part, f.name), getattr(wanted, f.name)
            assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs
        assert number == 1 or part.input_ids.numel() <= max_tokens
        start += number
    assert start == len(made)
    for first, second in pairwise(parts):  # no part could take one more
        lengths = (*first.lengths, second.lengths[0])
        assert (sum(lengths) if packed else max(lengths) * len(lengths)) > max_tokens


@pytest.mark.parametrize("name", OBJECTIVES)
@examples(12)
@given(members=MEMBERS, packed=st.booleans(), max_tokens=st.sampled_from([1, 60, 120]))
def test_parts_learn_what_the_batch_does(
    name: str, members: Sequence[Case], packed: bool, max_tokens: int
) -> None:
    kind, decision = OBJECTIVES[name]
    turn_frames = 2 if kind is ObjectiveKind.PER_TURN else None
    made = [example(case, rho=0.7, turn_frames=turn_frames) for case in members]
    config = ObjectiveConfig(
        kind=kind, pos_weight=2.0, response_gen_weight=0.5, silent_logit_weight=0.3
    )
    assistant, batch = model(decision, "dst_ext"), (pack if packed else collate)(made)

    whole = compute_losses(assistant, batch, config)
    parts = compute_losses_in_parts(assistant, batch, config, max_tokens)

    torch.testing.assert_close(parts.total, whole.total, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(terms(parts), terms(whole), rtol=1e-9, atol=1e-9)
    ours, theirs = gradients(assistant, 3 * parts.total), gradients(assistant, 3 * whole.total)
    for parameter, gradient in theirs.items():
        room = 1e-9 * max(float(gradient.abs().max()), 1.0)
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-9, atol=room)


def some_batch() -> Batch:
    from tests.sequence.batches import example_set

    made = example_set(rho=1.0)
    return pack([made[0, 0], made[0, 1], made[1, 0]])


def test_the_model_sees_one_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant, batch, seen = tiny_model(), some_batch(), list[int]()
    assistant.register_forward_pre_hook(lambda _, args: seen.append(args[0].input_ids.numel()))

    compute_losses_in_parts(
        assistant, batch, ObjectiveConfig(), max(batch.lengths)
    ).total.backward()
    assert tuple(seen) == batch.lengths
    compute_losses_in_parts(assistant, batch, ObjectiveConfig(), None)
    compute_losses_in_parts(assistant, batch, ObjectiveConfig(), 10**6)
    with torch.no_grad():
        compute_losses_in_parts(assistant, batch, ObjectiveConfig(), 1)
    assert seen[len(batch.lengths) :] == [sum(batch.lengths)] * 3


def test_gradients_are_handed_over_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant, places = tiny_model(), dict[int, int]()
    add = micro_batches._Sums.add

    def noted(self: micro_batches._Sums, found: list[Tensor | None]) -> None:
        add(self, found)
        places.update({i: t.data_ptr() for i, t in enumerate(self.tensors) if t is not None})

    monkeypatch.setattr(micro_batches._Sums, "add", noted)
    compute_losses_in_parts(assistant, some_batch(), ObjectiveConfig(), 1).total.backward()

    for i, parameter in enumerate(assistant.parameters()):
        assert parameter.grad.data_ptr() == places[i]


def test_a_gradient_of_two_parameters_is_added_to_each_once() -> None:
    added, one = micro_batches._Sums(2), torch.ones(3)
    added.add([one, one])
    added.add([torch.ones(3), None])

    assert [tensor.tolist() for tensor in added.tensors] == [[2.0] * 3, [1.0] * 3]


def test_frozen_weights_get_no_gradient_and_sixteen_bits_go_through() -> None:
    assistant = tiny_model(dtype=torch.float32)
    assistant.lm.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        whole = compute_losses(assistant, some_batch(), ObjectiveConfig())
        parts = compute_losses_in_parts(assistant, some_batch(), ObjectiveConfig(), 1)
    parts.total.backward()

    torch.testing.assert_close(parts.total, whole.total, rtol=2e-2, atol=0)
    assert all((p.grad is not None) == p.requires_grad for p in assistant.parameters())
    trained = tiny_model(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):  # weights are cast once for all parts
        compute_losses_in_parts(trained, some_batch(), ObjectiveConfig(), 1).total.backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in trained.lm.get_decoder().layers.parameters())
    assert isinstance(trained, nn.Module)


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_small_gradients_in_half_precision_do_not_vanish() -> None:
    weights = dict.fromkeys(
        ("response_gen_weight", "speaking_binary_weight", "dst_gen_weight", "dst_binary_weight"),
        1e-6,
    )

    def found(micro_tokens: int | None) -> Tensor:
        """The gradient of a step, all in one."""
        module = AssistantModule(
            tiny_model(dtype=torch.float32), ObjectiveConfig(**weights), OptimizerConfig(),
            num_steps=1, micro_tokens=micro_tokens,
        )  # fmt: skip
        noted = list[Tensor]()
        module.on_before_optimizer_step = lambda _: noted.extend(  # type: ignore[method-assign]
            p.grad.flatten() for p in module.parameters()
        )
        trainer = L.Trainer(
            accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu")], max_steps=1,
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader([some_batch()], batch_size=None))  # type: ignore[arg-type]
        return torch.cat(noted)

    whole, parts = found(None), found(1)
    assert whole.norm() > 0
    assert (parts - whole).norm() < 1e-2 * whole.norm()


@pytest.mark.parametrize("max_tokens", [None, 60])
@pytest.mark.parametrize("name", OBJECTIVES)
@examples(8)
@given(members=st.lists(cases(max_turns=8, tokens=(1, 5), formats=("dst_ext",)), min_size=2,
                        max_size=4))  # fmt: skip
def test_shares_of_processes_add_up_to_the_batch(
    name: str, max_tokens: int | None, members: Sequence[Case]
) -> None:
    kind, decision = OBJECTIVES[name]
    turn_frames = 2 if kind is ObjectiveKind.PER_TURN else None
    made = [example(case, rho=0.7, turn_frames=turn_frames) for case in members]
    config = ObjectiveConfig(kind=kind, pos_weight=2.0, silent_logit_weight=0.3)
    assistant = model(decision)
    whole = compute_losses(assistant, collate(made), config)
    wanted = gradients(assistant, whole.total)

    shares = [collate(made[:1]), collate(made[1:])]
    counts = torch.stack([count_terms(assistant, share) for share in shares]).sum(0)
    parts = [
        compute_losses_in_parts(assistant, share, config, max_tokens, counts) for share in shares
    ]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    found = [gradients(assistant, part.total) for part in parts]
    for key, value in wanted.items():
        torch.testing.assert_close(found[0][key] + found[1][key], value, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("packed", [False, True])
def test_parts_have_at_most_so_many_conversations(packed: bool) -> None:
    from tests.sequence.batches import example_set

    made = example_set(rho=1.0)
    members = [made[0, 0], made[0, 1], made[1, 0]]
    parts = split((pack if packed else collate)(members), None, 2)
    assert [len(part.lengths) for part in parts] == [2, 1]
    assistant = tiny_model()
    whole = compute_losses(assistant, pack(members), ObjectiveConfig())
    found = compute_losses_in_parts(
        assistant, pack(members), ObjectiveConfig(), None, max_conversations=2
    )
    torch.testing.assert_close(found.total, whole.total)


@pytest.mark.parametrize("num_parts", [3, 5])  # of which the last two are another process's
def test_parts_of_shards_go_backward_one_after_the_other(num_parts: int) -> None:
    assistant, batch, config = tiny_model(), some_batch(), ObjectiveConfig(pos_weight=2.0)
    whole = compute_losses(assistant, batch, config)
    wanted = gradients(assistant, 2 * whole.total)
    parts, passed = split(batch, 1), list[float]()
    assert len(parts) == 3

    def backward(share: Tensor) -> None:
        passed.append(float(share.detach()))
        (2 * share).backward()

    found = compute_losses_of_shards(
        assistant, parts, config, count_terms(assistant, batch), backward, num_parts=num_parts
    )
    (2 * found.total).backward()

    assert len(passed) == num_parts - 1
    assert all(share > 0 for share in passed[:3])
    assert passed[3:] == [0.0] * (num_parts - 4 if num_parts > 3 else 0)
    torch.testing.assert_close(found.total, whole.total)
    torch.testing.assert_close(terms(found), terms(whole))
    for name, parameter in assistant.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, wanted[name], atol=1e-9, rtol=1e-7)
