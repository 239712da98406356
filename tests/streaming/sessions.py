"""A session to which users and the system speak, its words given or its own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from proassist_lit.data.conversation import FramesTurn, SystemTurn, Turn, UserTurn
from proassist_lit.sequence.chat import Chat
from proassist_lit.sequence.script import read_script
from proassist_lit.streaming.arrivals import heard
from proassist_lit.streaming.config import StreamConfig
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput
from tests.fakes import STEPS, ScriptedModel, dialogue

UTTERANCES = ("first wash", "it is all good now", "wait")
DST = ("S1->start", "S1->complete;S2->start", "S2->complete")
NUM_FRAMES = 30
CONFIG = StreamConfig(
    theta_speak=0.5, theta_dst=0.5, max_new_tokens=6, max_dst_tokens=4, max_context=4096
)
SMALL = replace(CONFIG, max_new_tokens=8, max_dst_tokens=4, reserve=24, max_context=80)


def user_talk(num_frames: int = NUM_FRAMES) -> tuple[Turn, ...]:
    """Frames with users and system between them; nothing of a reference."""
    return (
        SystemTurn(content="please help"),
        UserTurn(content="make soup"),
        FramesTurn(start=4, end=10),
        UserTurn(content="how many"),
        SystemTurn(content="use the knife"),
        FramesTurn(start=10, end=11),
        UserTurn(content="wait"),
        FramesTurn(start=11, end=4 + num_frames),
    )


def open_session(
    model: ScriptedModel, chat: Chat, *, config: StreamConfig = CONFIG, k: int = 1, steps=STEPS
) -> Session:
    script = read_script(dialogue(user_talk(), steps=steps))
    return Session(model, chat, script, config, fps=2.0, num_tokens_per_img=k,
                   start_frame_idx=4, name="kitchen", decoder=model.noting_decoder())  # fmt: skip


def play(session: Session, features: Tensor) -> list[FrameOutput]:
    script = read_script(dialogue(user_talk(len(features))))
    return [session.step(frame, heard(script, i)) for i, frame in enumerate(features)]
