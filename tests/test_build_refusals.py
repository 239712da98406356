"""What a configuration cannot build is refused before training."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from proassist_lit import build
from proassist_lit.build import build_core, build_examples
from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import FramesTurn, UserTurn
from proassist_lit.data.dataset import ConversationSet, load_data
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.feature_content import read_content, write_content
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import ConfigError, FeatureError, RecordError, StreamError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.lit.settings_checks import check_batches
from proassist_lit.model.config import ModelConfig
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.streaming.config import Strategy, StreamConfig
from tests.small_run import small_run


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_splits_of_different_widths_are_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def width(self: ConversationSet, ways: Any) -> int:
        return 12 if self.split == "val" else 48

    monkeypatch.setattr(ConversationSet, "check_features", width)
    with pytest.raises(
        RecordError, match=r"val\.jsonl:1: .*widths \(48 in train, 12 in val, 48 in test\); enc"
    ):
        build_core(small_run(cache))


def test_splits_whose_features_were_made_differently_are_refused(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    sets = load_data(run.data)
    for split, preprocessing in (("train", "stretch"), ("val", "processor")):
        for conversation in sets[split]:
            path = sets[split].feature_path(conversation)
            grids, notes = read_content(path)
            made = {"encoder": "e", "revision": "1", "layer": -1, "preprocessing": preprocessing}
            write_content(path, grids, {**notes, "made": json.dumps(made)})

    with pytest.raises(
        FeatureError, match=r"val\.jsonl:1: .*00\.safe.* from those of .*train.*: preprocessing pro"
    ):
        build_core(run)


def test_similarity_that_cannot_be_loaded_is_refused_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, **_: Any) -> None:
        raise OSError(f"no {path}")

    library = SimpleNamespace(SentenceTransformer=refuse)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    run = small_run(tmp_path, evaluation=EvaluationConfig(similarity="some/where"))
    with pytest.raises(ConfigError, match=r"'some/where' could not be loaded .*no some/where"):
        build_core(run)
    assert not [*tmp_path.iterdir()]  # no data was drawn


@pytest.mark.parametrize(
    ("stream", "data", "asked", "remedy"),
    [
        (600, 600, None, ""),
        (601, 600, "stream.max_context=601", "lower stream.max_context to"),
        (600, 700, "data.max_seq_len=700", "lower data.max_seq_len to"),
        (601, 700, "stream.max_context=601 and data.max_seq_len=700",
         "lower stream.max_context and data.max_seq_len to"),
    ],
    ids=["fits", "stream", "data", "both"],
)  # fmt: skip
def test_context_that_the_backbone_cannot_read_is_refused_before_training(
    stream: int, data: int, asked: str | None, remedy: str, cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def small(_: ModelConfig, tokenizer: Any) -> GPT2LMHeadModel:
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_positions=600, n_embd=8, n_layer=1, n_head=1)
        )

    monkeypatch.setattr(build, "build_backbone", small)
    run = small_run(cache, stream=StreamConfig(max_context=stream, reserve=256))
    run.data.max_seq_len = data
    if asked is None:
        assert build_core(run).model.context_limit is not None
        return
    message = rf"model\.backbone=tiny has a table of positions .* 600 tokens, but {asked}; {remedy}"
    with pytest.raises(ConfigError, match=message) as error:
        build_core(run)
    assert re.search("at most 600, or choose a backbone with rotary", str(error.value))


def test_a_reserve_without_room_is_refused_before_training(cache: Path) -> None:
    stream = StreamConfig(max_new_tokens=64, max_dst_tokens=48, reserve=100)

    with pytest.raises(ConfigError, match=r"stream\.reserve is 100, but one frame and what may be"):
        build_core(small_run(cache, stream=stream))

    drop = StreamConfig(max_new_tokens=64, max_dst_tokens=48, reserve=100,
                        strategy=Strategy.DROP_MIDDLE)  # fmt: skip
    build_core(small_run(cache, compat=Compat.PROASSIST, stream=drop))  # its rules are others


def test_keys_that_cannot_be_moved_are_refused_before_training(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gpt2(_: ModelConfig, tokenizer: Any) -> GPT2LMHeadModel:
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_positions=8192, n_embd=8, n_layer=1, n_head=1)
        )

    monkeypatch.setattr(build, "build_backbone", gpt2)
    build_core(small_run(cache, stream=StreamConfig()))
    with pytest.raises(
        ConfigError, match=r"drop_middle must move kept keys .* not of gpt2; choose"
    ):
        build_core(small_run(cache))
    build_core(small_run(cache, compat=Compat.PROASSIST))  # it leaves them where they were


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("method", SplitMethod)
def test_frames_that_no_sequence_holds_are_refused_before_training(
    method: SplitMethod, split: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a record that is cut, only its first frame must fit."""
    long = UserTurn(content="wait " * 4100)

    def data(place: int) -> Callable[..., dict[str, ConversationSet]]:
        def load(settings: DataConfig, **rules: bool) -> dict[str, ConversationSet]:
            sets = load_data(settings, **rules)
            (talk,) = sets[split].conversations
            first = next(i for i, t in enumerate(talk.turns) if isinstance(t, FramesTurn))
            turns = list(talk.turns)
            turns.insert(first + place, long)
            sets[split] = replace(sets[split], conversations=(replace(talk, turns=tuple(turns)),))
            return sets

        return load

    run = small_run(cache, splitting=SplitConfig(method=method), stream=StreamConfig())
    message = (
        rf"{split}\.jsonl:1: frame \d+ with the prompt .* does not fit into max_seq_len = 4096"
    )
    cuts = method is SplitMethod.CUT
    monkeypatch.setattr(build, "load_data", data(0 if cuts else 1))
    with pytest.raises(RecordError, match=message):
        build_core(run)
    if cuts:
        monkeypatch.setattr(build, "load_data", data(1))
        build_core(run)


def test_prompts_without_room_are_refused_before_training(cache: Path) -> None:
    stream = StreamConfig(
        strategy=Strategy.DROP_MIDDLE, window_tokens=200, max_context=512, reserve=256
    )
    with pytest.raises(ConfigError, match=r"stream 'toy-val-.* and stream\.window_tokens 200 more"):
        build_core(small_run(cache, stream=stream))


def test_match_windows_of_no_data_set_are_refused(cache: Path) -> None:
    def run(name: str) -> RunConfig:
        windows = {name: [-1.5, 3.0]}
        return small_run(cache, evaluation=EvaluationConfig(similarity="words", windows=windows))

    with pytest.raises(ConfigError, match=r"evaluation\.windows: .* 'Toy' .* nearest is 'toy'"):
        build_core(run("Toy"))
    build_core(run("toy"))
    build_core(run("tea"), windows=())  # of a run on other data


def test_knowledge_without_room_is_refused_before_training(cache: Path) -> None:
    def run(*, knowledge: bool) -> RunConfig:
        data = DataConfig(cache=str(cache), encoder="thumbnail4",
                          toy=ToyConfig(num_train=1, num_val=1, num_test=1),
                          dialogue=DialogueConfig(knowledge=knowledge))  # fmt: skip
        stream = StreamConfig(strategy=Strategy.DST_REFRESH, max_context=386, reserve=256)
        return small_run(cache, data=data, stream=stream)

    build_core(run(knowledge=False))
    with pytest.raises(ConfigError, match=r"stream 'toy-val-.* leaves no room for frames of 1 in"):
        build_core(run(knowledge=True))


def test_streams_that_cannot_end_are_refused_before_training(cache: Path) -> None:
    def run(max_context: int) -> RunConfig:
        stream = StreamConfig(strategy=Strategy.NONE, max_context=max_context, reserve=256)
        return small_run(cache, splitting=SplitConfig(method=SplitMethod.CUT), stream=stream)

    build_core(run(4096))
    with pytest.raises(StreamError, match=r"'toy-val-.* frames are too many for stream\.strat"):
        build_core(run(400))


@pytest.mark.parametrize(
    ("data", "size"),
    [({"batch_size": 7}, r"data\.batch_size=7"), ({"max_tokens": 900}, r"data\.max_tokens=900")],
)
def test_data_without_a_single_batch_is_refused(data: dict, size: str) -> None:
    run = RunConfig(data=DataConfig(**data))
    check_batches(run, 1, num_ranks=4)
    message = rf"too few conversations for one step of 4 processes with {size} each; lower it, or"
    with pytest.raises(ConfigError, match=message):
        check_batches(run, 0, num_ranks=4)


def test_training_without_any_state_to_learn_is_refused(cache: Path) -> None:
    made = small_run(cache)
    stateless = replace(made.data, dialogue=replace(made.data.dialogue, steps=False))
    core = build_core(replace(made, data=stateless))
    with pytest.raises(RecordError, match=r"and 2 others: no conversation lists.*model\.dst=false"):
        build_examples(made, core, "train")
    build_examples(made, core, "val")
    for model in (
        replace(made.model, dst=False),
        replace(made.model, init_from="elsewhere"),  # whose head learnt it
    ):
        build_examples(replace(made, model=model), core, "train")
    new = replace(made.model, init_from="elsewhere", init_new=("dst_head",))
    with pytest.raises(RecordError, match="lists the steps"):
        build_examples(replace(made, model=new), core, "train")


def test_rules_that_know_no_state_cannot_teach_it(cache: Path) -> None:
    run = small_run(cache, compat=Compat.PROASSIST)
    with pytest.raises(ConfigError, match=r"compat=proassist tracks no state .*model\.dst=false"):
        build_examples(run, build_core(run), "train")
