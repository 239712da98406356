from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from proassist_lit.lit.interrupt import interruptible


@pytest.fixture
def handler() -> Iterator[object]:
    """What hears Ctrl-C, as a program or a notebook has set it."""

    def hear(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hear)
    yield hear
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore")  # of Lightning: not tested here
def test_ctrl_c_leaves_a_trainer_as_itself_and_is_heard_again(
    handler: object, tmp_path: Path
) -> None:
    class Interrupted(BoringModel):
        def training_step(self, *_: object) -> None:
            signal.raise_signal(signal.SIGINT)

    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt), interruptible():
        trainer.fit(Interrupted())
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("error", [SystemExit(143), ValueError("bug"), KeyboardInterrupt()])
def test_whatever_else_ends_a_training_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, interruptible():
        raise error
    assert caught.value is error


def test_an_error_behind_ctrl_c_does_not_deafen(handler: object) -> None:
    def fail() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Lightning, before its callbacks
        raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"), interruptible():
        fail()
    assert signal.getsignal(signal.SIGINT) is handler
