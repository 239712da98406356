from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from proassist_lit.data.collate import pack
from proassist_lit.errors import ConfigError
from proassist_lit.model import training_layers
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.training_layers import GradientCheckpointing, prepare_layers
from proassist_lit.objectives import ObjectiveConfig, compute_losses
from tests.fakes import tiny_model
from tests.model.test_architectures import TABLE
from tests.model.tiny_lms import assistant, causal_lm, embeddings
from tests.sequence.batches import example_set

NONE, SELECTIVE, FULL = GradientCheckpointing
OF_TORCH = pytest.mark.filterwarnings("ignore")  # its compiler warns of itself


def batch() -> Any:
    examples = example_set(rho=1.0)
    return pack([examples[0, i] for i in range(2)])


def loss_and_gradients(model: AssistantModel) -> list[Tensor]:
    total = compute_losses(model.train(), batch(), ObjectiveConfig()).total
    return [total.detach(), *torch.autograd.grad(total, list(model.parameters()))]


class Products(TorchDispatchMode):
    """Counts matrix products and attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.attentions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        self.products += name in ("aten::mm", "aten::addmm")
        self.attentions += name.startswith("aten::_scaled_dot_product_flash_attention_for_cpu")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("keeps", [SELECTIVE, FULL])
def test_checkpointing_changes_no_gradient(keeps: GradientCheckpointing) -> None:
    plain, prepared = tiny_model(), tiny_model()
    prepare_layers(prepared.lm, keeps, compiles=False)

    for ours, wanted in zip(loss_and_gradients(prepared), loss_and_gradients(plain), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


def test_full_computes_everything_again_and_selective_what_is_cheap() -> None:
    counts = {}
    for keeps in GradientCheckpointing:
        model = tiny_model().train()
        prepare_layers(model.lm, keeps, compiles=False)
        with Products() as forward:
            total = compute_losses(model, batch(), ObjectiveConfig()).total
        with Products() as backward:
            total.backward()
        counts[keeps] = (forward.products, backward.products, backward.attentions)

    forward = counts[NONE][0]
    layers = 2 * 7  # products of two layers; the last of each feeds nothing that is needed
    assert counts[SELECTIVE] == counts[NONE]
    assert forward == counts[FULL][0]
    assert counts[NONE][1] + layers - 2 <= counts[FULL][1] <= counts[NONE][1] + layers
    attended = 2 * 2  # layers, conversations: backward, and again for the gradient
    assert (counts[NONE][2], counts[FULL][2]) == (attended, 2 * attended)


@pytest.mark.parametrize("keeps", [SELECTIVE, FULL])
def test_less_is_kept(keeps: GradientCheckpointing) -> None:
    kept = {}
    for option in (NONE, keeps):
        model = tiny_model().train()
        prepare_layers(model.lm, option, compiles=False)
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            hidden = model(batch()).hidden
        kept[option] = sum(sizes.values())
        del hidden

    assert kept[keeps] < 0.7 * kept[NONE]


@pytest.mark.parametrize("keeps", [SELECTIVE, FULL])
@pytest.mark.parametrize("name", TABLE)
def test_layers_of_every_architecture_are_found(name: str, keeps: GradientCheckpointing) -> None:
    lm = causal_lm(TABLE[name][0], **TABLE[name][1])
    plain = assistant(copy.deepcopy(lm))
    prepare_layers(lm, keeps, compiles=False)
    found = []
    for model in (assistant(lm), plain):
        torch.manual_seed(0)  # some drop out
        embeds = embeddings(9)[None].requires_grad_()
        model.train().hidden_states(embeds).sin().sum().backward()
        found.append(embeds.grad)

    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_copy_of_a_prepared_model_runs_itself() -> None:
    model = tiny_model()
    prepare_layers(model.lm, FULL, compiles=False)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.lm.get_decoder().layers.parameters():
            parameter.zero_()

    embeds = model.embed_ids([1, 2, 3])[None]
    assert not torch.equal(copied.train().hidden_states(embeds), model.hidden_states(embeds))
    fresh = tiny_model()
    assert torch.equal(model.eval().hidden_states(embeds), fresh.hidden_states(embeds))


@pytest.mark.road
@OF_TORCH
def test_names_of_weights_stay() -> None:
    model, fresh = tiny_model(), tiny_model()
    prepare_layers(model.lm, FULL, compiles=True)

    assert list(model.state_dict()) == list(fresh.state_dict())


def test_layers_are_compiled_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def compiled(run: Any, *, dynamic: bool) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(args[0])
            return run(*args, **kwargs)

        assert dynamic
        return call

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(training_layers, "_COMPILED", {})
    model = tiny_model()
    prepare_layers(model.lm, NONE, compiles=True)
    model(batch())
    assert made == []
    model.train()(batch())
    assert made == list(model.lm.get_decoder().layers)


@OF_TORCH
@pytest.mark.road
def test_compiled_layers_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def traced(run: Any, *, dynamic: bool) -> Any:  # as far as no compiler is needed
        return torch._dynamo.optimize("aot_eager", dynamic=dynamic)(run)

    monkeypatch.setattr(torch, "compile", traced)
    monkeypatch.setattr(training_layers, "_COMPILED", {})
    plain, prepared = tiny_model(), tiny_model()
    prepare_layers(prepared.lm, NONE, compiles=True)

    for ours, wanted in zip(loss_and_gradients(prepared), loss_and_gradients(plain), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@OF_TORCH
@pytest.mark.slow
def test_compiled_layers_learn_the_same_by_inductor() -> None:
    plain, prepared = tiny_model(dtype=torch.float32), tiny_model(dtype=torch.float32)
    prepare_layers(prepared.lm, FULL, compiles=True)

    for ours, wanted in zip(loss_and_gradients(prepared), loss_and_gradients(plain), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_selective_checkpoints_of_compiled_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"selective does not see into .* set gradient_check"):
        prepare_layers(tiny_model().lm, SELECTIVE, compiles=True)


def test_layers_that_hugging_face_does_not_mark_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_layers, "GradientCheckpointingLayer", torch.nn.Bilinear)

    with pytest.raises(ConfigError, match=r"is a llama, whose layers .*trainer\.compile=false"):
        prepare_layers(tiny_model().lm, FULL, compiles=False)
    prepare_layers(tiny_model().lm, NONE, compiles=False)
