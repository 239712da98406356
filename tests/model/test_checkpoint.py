"""The file of a checkpoint: what does not fit is listed, what would run code is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from proassist_lit.errors import CheckpointError
from proassist_lit.model.checkpoint import load_weights
from tests.fakes import tiny_model

Captured = pytest.CaptureFixture[str]


def test_weights_of_another_model_are_listed(tmp_path: Path) -> None:
    model = tiny_model()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {name: tensor + 1 for name, tensor in state.items()}}, path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, path)
    assert all(torch.equal(t, before[name] + 1) for name, t in model.state_dict().items())

    names = list(state)
    gone, cut = names[0], names[1]
    del state[gone]
    state[cut] = state[cut][:1]
    torch.save({"state_dict": state | {"model.extra.weight": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError) as fault:
        load_weights(model, path)
    for part in (
        f"1 missing: {gone.removeprefix('model.')}",
        "1 left over: extra.weight",
        f"1 of another shape: {cut.removeprefix('model.')}: (1, ",
    ):
        assert part in str(fault.value)
    assert all(torch.equal(t, before[name] + 1) for name, t in model.state_dict().items())


@pytest.mark.parametrize("kind", ["missing", "left over", "of another shape"])
def test_one_wrong_tensor_is_enough(kind: str, tmp_path: Path) -> None:
    model = tiny_model()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    name = next(iter(state))
    if kind == "missing":
        del state[name]
    elif kind == "left over":
        state["model.extra"] = state[name]
    else:
        state[name] = state[name][:1]
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=f"1 {kind}: "):
        load_weights(model, tmp_path / "w.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"nonsense"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.ckpt: cannot be read as a checkpoint"):
        load_weights(tiny_model(), path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("owned",)

    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match=r"w\.ckpt: cannot be read.*UnpicklingError"):
        load_weights(tiny_model(), tmp_path / "w.ckpt")
