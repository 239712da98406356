from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proassist_lit.data.conversation import Conversation
from proassist_lit.errors import FeatureError, ProAssistError
from proassist_lit.evaluation import streamer as streamer_module
from proassist_lit.evaluation.evaluator import Evaluator
from proassist_lit.evaluation.result import EvaluationResult
from proassist_lit.evaluation.streamer import Streamer, complete
from proassist_lit.model.config import Decision
from proassist_lit.streaming import answers
from proassist_lit.streaming.answers import AnswerStore
from proassist_lit.streaming.config import Strategy
from proassist_lit.streaming.engine import Engine
from proassist_lit.streaming.policy import Thresholds
from proassist_lit.streaming.shards import bring_together
from proassist_lit.types import FrameOutput, StepState, Transcript, Transition, Update
from tests.evaluation.fakes import CONFIG, make_evaluator
from tests.fakes import ScriptedModel, dialogue, random_features, tiny_model, word_chat
from tests.streaming.reference_sessions import chat as marked_chat

FRAME = FrameOutput(
    frame_idx=3, time_s=1.5, speak_prob=0.1 + 0.2, dst_prob=None, speak=True, dst=True,
    text='sag "grün"', updates=(Update("S1", Transition.START),), dst_invalid=2,
    state={"S1": StepState.IN_PROGRESS}, user_text="wait", context_len=7, event="drop_all",
)  # fmt: skip


def answered_frames(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the streams that engines answer from now on."""
    names: list[str] = []
    opens = Engine._open

    def noting(self: Engine, house, place, index, recording, rows):
        names.append(recording.name)
        return opens(self, house, place, index, recording, rows)

    monkeypatch.setattr(Engine, "_open", noting)
    return names


def interrupted(evaluator: Evaluator, model: ScriptedModel, folder: Path) -> None:
    def stop(split: str, _: Transcript) -> None:
        if split == "test":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(model, on_stream=stop, answers=folder)


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers", tiny_model())
    frames = [FRAME, replace(FRAME, frame_idx=4, dst_prob=1 / 3, updates=(), event=None)]

    store.write("key", frames)

    assert store.read("key") == frames
    assert store.read("other") is None
    store.write("of another evaluation", frames)
    store.clear(["key", "never written"])
    assert store.read("key") is None
    assert store.read("of another evaluation") == frames
    store.clear(["of another evaluation"])
    assert not (tmp_path / "answers").exists()


def test_the_key_tells_apart_what_answers_depend_on(tmp_path: Path) -> None:
    record, features = dialogue(), random_features(10)
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        other.projector[0].bias[3] += 1e-9
    dotted = features.clone()
    dotted[9, 0, 1] += 1e-6

    def key(*settings: object, of: ScriptedModel = model, frames: Tensor = features,
            conversation: Conversation = record) -> str:  # fmt: skip
        return AnswerStore(tmp_path, of, *settings).key(conversation, frames)

    keys = [
        key(CONFIG), key(replace(CONFIG, theta_speak=0.61)), key(CONFIG, of=other),
        key(CONFIG, frames=dotted), key(CONFIG, conversation=dialogue(video_uid="other")),
    ]  # fmt: skip
    assert key(CONFIG) == keys[0]
    assert len(set(keys)) == 5


def test_the_key_tells_apart_the_code_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_PACKAGE", tmp_path)
    files = [tmp_path / name for name in ("types.py", "sequence/script.py", "report/page.py")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("a = 1\n")
    model, features = tiny_model(), random_features(10)

    def key() -> str:
        return AnswerStore(tmp_path, model).key(dialogue(), features)

    keys = [key()]
    for file in files:
        file.write_text("a = 2\n")
        keys.append(key())
    assert len({*keys[:3]}) == 3
    assert keys[3] == keys[2]  # reports are written from the answers


def test_what_decisions_are_read_from_tells_answers_apart(tmp_path: Path) -> None:
    chat = word_chat("dst_ext")
    model = tiny_model(decision=Decision.SILENT_TOKEN, dst=False, chat=chat)
    other = tiny_model(decision=Decision.OPENING_TOKEN, dst=False, chat=chat)
    other.load_state_dict(model.state_dict())
    data, features = [dialogue()], random_features(10)
    found = []
    for either in (model, other):
        streamer = Streamer(either, chat, CONFIG, num_tokens_per_img=1, answers=tmp_path)
        streamer.answer(data, lambda _: features, [Thresholds.of(CONFIG)])
        found.append({path.name for path in tmp_path.iterdir()})
    assert len(found[0]) == 1
    assert len(found[1]) == 2


def test_a_stopped_evaluation_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, evaluator, folder = tiny_model(), make_evaluator(), tmp_path / "answers"
    whole: EvaluationResult = evaluator.evaluate(model)
    interrupted(evaluator, model, folder)
    assert len(list(folder.iterdir())) == 4  # all of val, the first of test
    names = answered_frames(monkeypatch)
    told: list[str] = []

    result = evaluator.evaluate(
        model, on_stream=lambda split, t: told.append(t.stream_id), answers=folder
    )

    assert result.metrics == whole.metrics
    assert result.transcripts == whole.transcripts
    assert sorted(told) == sorted(f"{s}_0_user" for s in ("val3", "val4", "val5", *TESTS))
    assert len(names) == 2 + 3 + 3  # the rest of test, blind twice
    assert len(list(folder.iterdir())) == 12  # until the result is written
    evaluator.clear_answers()
    assert not folder.exists()


TESTS = ("test6", "test7", "test8")


def test_a_process_whose_features_fail_tells_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def telling(mine: Mapping[object, object], error: ProAssistError | None = None) -> object:
        told.append((len(mine), error))
        return bring_together(mine, error)

    def features(number: int) -> Tensor:
        if number == 0:
            raise error
        return random_features(10)

    monkeypatch.setattr(streamer_module, "bring_together", telling)
    error, data = FeatureError("damaged"), [dialogue(), dialogue(video_uid="other")]
    streamer = Streamer(tiny_model(), word_chat(), CONFIG, num_tokens_per_img=1, answers=tmp_path)

    with pytest.raises(FeatureError, match="damaged"):
        streamer.answer(data, features, [Thresholds.of(CONFIG)])

    assert told == [(0, error)]
    assert not list(tmp_path.iterdir())  # it is told before any is answered


def test_the_streams_of_all_thresholds_share_their_references(tmp_path: Path) -> None:
    chat, features = word_chat(), random_features(10)
    rows = [Thresholds.of(replace(CONFIG, theta_speak=theta)) for theta in (0.4, 0.6, 0.7)]
    streamer = Streamer(tiny_model(), chat, CONFIG, num_tokens_per_img=1, answers=tmp_path)

    for some in (rows[:2], rows):  # then two of three are kept
        found = streamer.answer([dialogue()], lambda _: features, some)
        one, *others = [complete(outcomes)[0].references for outcomes in found]
        assert all(other is one for other in others)


@pytest.mark.parametrize("compat", [False, True])
def test_kept_streams_are_those_of_a_model_that_tracks_no_state(
    tmp_path: Path, compat: bool
) -> None:
    config = replace(CONFIG, strategy=Strategy.DROP_ALL)
    streamer = Streamer(
        tiny_model(dst=compat), marked_chat(), config, num_tokens_per_img=1, compat=compat,
        answers=tmp_path,
    )  # fmt: skip
    features, rows = random_features(10), [Thresholds.of(CONFIG)]
    fresh = streamer.answer([dialogue()], lambda _: features, rows)
    assert streamer.answer([dialogue()], lambda _: features, rows) == fresh


@pytest.mark.parametrize(
    "content",
    [b"", b"[{", b"\xff", b"3", b"[3]", b"[{}]", b'{"a": 1}', b'[{"updates": [], "state": []}]'],
)
def test_a_file_that_holds_no_answers_is_none(tmp_path: Path, content: bytes) -> None:
    store = AnswerStore(tmp_path, tiny_model())
    (tmp_path / "key.json").write_bytes(content)
    assert store.read("key") is None


def test_answers_with_other_fields_are_none(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, tiny_model())
    store.write("key", [FRAME])
    row = json.loads((tmp_path / "key.json").read_text(encoding="utf-8"))[0]
    less = {name: value for name, value in row.items() if name != "context_len"}
    for other in (row | {"once": 1}, less, row | {"state": {"S1": "asleep"}}):
        (tmp_path / "key.json").write_text(json.dumps([other]), encoding="utf-8")
        assert store.read("key") is None


def test_another_evaluation_answers_everything_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = tiny_model(), tmp_path / "answers"
    interrupted(make_evaluator(), model, folder)
    kept = sorted(folder.iterdir())
    names = answered_frames(monkeypatch)

    other = make_evaluator(replace(CONFIG, theta_speak=0.4))
    other.evaluate(model, answers=folder)
    other.clear_answers()

    assert len(names) == 12
    assert sorted(folder.iterdir()) == kept  # the first one goes on with them
