"""One session of the demo: what waits to be watched, and what waits to be told."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from proassist_lit.demo.limits import Limits
from proassist_lit.demo.messages import Frame, Refusal
from proassist_lit.demo.recorder import Recorder
from proassist_lit.errors import ProAssistError, StreamError
from proassist_lit.live.task import Task
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.script import Text
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.session import Session
from proassist_lit.types import FrameOutput


@dataclass(frozen=True)
class _Waiting:
    frame: Frame
    since_s: float


class Viewer:
    """A session: one user, one stream.

    The event loop offers frames and words and takes answers; the model's thread calls ``watch``.
    One frame waits at most: a newer one takes its place.

    Args:
        session: the stream, which has just begun.
        task: what it was told.
        limits: of the server.
        recorder: keeps what is watched; None to keep nothing.
    """

    def __init__(
        self, session: Session, task: Task, limits: Limits, recorder: Recorder | None = None
    ) -> None:
        self.task = task
        self.wake: Callable[[], None] = lambda: None
        """Called, in any thread, when there is something to take."""
        self.is_queued = False  # by the model's thread
        self._session, self._limits, self._recorder = session, limits, recorder
        self._lock = threading.Lock()
        self._frame: _Waiting | None = None
        self._words: deque[str] = deque()
        self._opening: tuple[Text, ...] = task.opening
        self._thresholds: Thresholds = session.thresholds
        self._answers: deque[dict[str, Any]] = deque()
        self._history: deque[dict[str, Any]] = deque(maxlen=limits.max_history)
        self._state = {step: state.value for step, state in session.state.items()}
        self._next_number, self._num_dropped = 0, 0
        self._end: Refusal | None = None

    def offer(self, frame: Frame) -> None:
        """A frame came; one that still waits is dropped.

        Raises:
            Refusal: it is not newer than the one before.
        """
        with self._lock:
            if frame.number < self._next_number:
                raise Refusal("malformed", f"expected frame {self._next_number} or a later one")
            self._next_number = frame.number + 1
            self._num_dropped += self._frame is not None
            self._frame = _Waiting(frame, time.monotonic())

    def say(self, words: str) -> None:
        """The user said something; it is heard with the next frame.

        Raises:
            Refusal: too much waits already.
        """
        with self._lock:
            if len(self._words) >= self._limits.max_waiting_words:
                raise Refusal("too_many_words", "wait for an answer")
            self._words.append(words)

    def set_thresholds(self, speak: float, dst: float) -> None:
        """From the next frame on, decide by these.

        Where ``stream.rise`` decides to speak, it goes on to until ``speak`` is another one.
        """
        with self._lock:
            rise = self._thresholds.rise if speak == self._thresholds.speak else None
            self._thresholds = Thresholds(speak, dst, rise)

    def end(self, refusal: Refusal) -> None:
        """Let the session end; its client is told why."""
        with self._lock:
            self._end = self._end or refusal
        self.wake()

    @property
    def ended(self) -> Refusal | None:
        """Why the session is over; None while it is not."""
        return self._end

    def take(self) -> dict[str, Any] | None:
        """The next answer to be told; None if there is none."""
        with self._lock:
            return self._answers.popleft() if self._answers else None

    def about(self) -> dict[str, Any]:
        """What a client must know that comes, or comes back: what waits is part of it."""
        with self._lock:
            self._answers.clear()
            return {
                "task": self.task.name,
                "steps": [[step.id, step.name] for step in self.task.steps],
                "state": dict(self._state),
                "thresholds": {"speak": self._thresholds.speak, "dst": self._thresholds.dst},
                "history": list(self._history),
                "next_frame": self._next_number,
            }

    def watch(self) -> None:
        """Watch the frame that waits, if there is one; in the model's thread."""
        with self._lock:
            waiting, self._frame = self._frame, None
            if waiting is None or self._end is not None:
                return
            words = list(self._words)
            self._words.clear()
            self._session.thresholds = self._thresholds
        began_s = time.monotonic()
        try:
            picture = _decode(waiting.frame.jpeg)
            texts = [*self._opening, *(Text(role=Role.USER, content=text) for text in words)]
            self._session.skip_to(waiting.frame.number)
            output = self._session.step(picture, texts)
        except Refusal as refusal:
            self.tell(refusal.to_json())
            with self._lock:
                self._words.extendleft(reversed(words))  # they were not heard
            return
        except StreamError as error:
            # Words that do not fit change nothing; a context that is full ends the stream.
            if words:
                self.tell(Refusal("too_many_words", str(error)).to_json())
            else:
                self.end(Refusal("over", str(error)))
            return
        except ProAssistError as error:
            self.end(Refusal("failed", str(error)))
            return
        self._opening = ()
        if self._recorder is not None:
            self._recorder.add(waiting.frame.jpeg, output)
        done_s = time.monotonic()
        self.tell(
            {
                **_answer(output, " ".join(words), self._state),
                "wait_ms": round(1000 * (began_s - waiting.since_s), 1),
                "work_ms": round(1000 * (done_s - began_s), 1),
                "dropped": self._num_dropped,
            }
        )

    def close(self) -> None:
        """Finish what is recorded; in the model's thread or after its end."""
        if self._recorder is not None:
            self._recorder.close(self.task)

    def tell(self, answer: dict[str, Any]) -> None:
        """Let the client be told; what it has no time to hear is forgotten, silence first."""
        with self._lock:
            self._state = answer.get("state", self._state)
            if _has_event(answer):
                self._history.append(answer)
            if len(self._answers) >= self._limits.max_waiting_answers:
                silent = (i for i, old in enumerate(self._answers) if not _has_event(old))
                del self._answers[next(silent, 0)]
            self._answers.append(answer)
        self.wake()


def _answer(
    output: FrameOutput, user_words: str, state_before: Mapping[str, str]
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "type": "frame",
        "frame": output.frame_idx,
        "time_s": round(output.time_s, 3),
        "speak_prob": round(output.speak_prob, 4),
        "dst_prob": None if output.dst_prob is None else round(output.dst_prob, 4),
        "speak": output.speak,
        "dst": output.dst,
    }
    if output.text:
        answer["text"] = output.text
    if user_words:
        answer["user"] = user_words
    if output.updates:
        answer["updates"] = [str(update) for update in output.updates]
        state = {step: state.value for step, state in output.state.items()}
        changed = {step: now for step, now in state.items() if now != state_before[step]}
        if changed:
            answer["changed"], answer["state"] = changed, state
    if output.event:
        answer["event"] = output.event
    return answer


def _has_event(answer: Mapping[str, Any]) -> bool:
    return bool(answer.keys() & {"text", "user", "changed", "event", "reason"})


def _decode(jpeg: bytes) -> Any:
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        raise Refusal("bad_frame", "the JPEG of a frame is damaged; it was not watched") from None
