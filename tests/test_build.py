from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from multiprocessing import reduction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from proassist_lit import build
from proassist_lit.build import Core, build_collate, build_core, build_examples, packs
from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import FramesTurn, UserTurn
from proassist_lit.data.dataset import ConversationSet, load_data
from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import ConfigError, RecordError, StreamError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.lit.build import build_datamodule, check_batches
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.objectives import ObjectiveConfig
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.splitting import SplitConfig, SplitMethod
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.types import Example


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def config(cache: Path, **changes: Any) -> RunConfig:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    settings = {
        "data": DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, packing=True),
        "model": ModelConfig(tiny=TinyConfig(hidden_size=16, num_layers=2, num_heads=2)),
        "stream": StreamConfig(max_new_tokens=2, max_dst_tokens=2, strategy=Strategy.DROP_MIDDLE),
        "evaluation": EvaluationConfig(similarity="words"),
    }
    return RunConfig(**settings | changes)


@pytest.mark.parametrize("asked", [True, False])
def test_words_at_the_turns_of_the_reference_are_written_where_asked_for(
    asked: bool, cache: Path
) -> None:
    evaluation = EvaluationConfig(similarity="words", forced_words=asked)
    core = build_core(config(cache, evaluation=evaluation))

    scores = core.evaluator._forcing.scores(core.model, core.data["val"], 0.5)

    assert "forced_perplexity" in scores  # of the reference's own words, which nobody writes
    assert ("forced_rouge_l" in scores) == ("forced_bleu_4" in scores) == asked
    assert core.evaluator._forcing.max_new_tokens == (2 if asked else 0)  # as streams


def test_splits_of_different_widths_are_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def width(self: ConversationSet) -> int:
        return 12 if self.split == "val" else 48

    monkeypatch.setattr(ConversationSet, "check_features", width)
    with pytest.raises(
        RecordError, match=r"val\.jsonl:1: .*widths \(48 in train, 12 in val, 48 in test\); enc"
    ):
        build_core(config(cache))


@pytest.mark.parametrize("compat", Compat)
def test_compat_chooses_who_answers_the_streams(compat: Compat, cache: Path) -> None:
    core = build_core(config(cache, compat=compat))

    metrics = core.evaluator.quick(core.model, 1).metrics

    # The reference tracks no state, so it has neither decisions nor updates that could be scored.
    assert "val_stream/speak_f1" in metrics
    assert any("/dst_" in name for name in metrics) == (compat is Compat.NONE)


def test_similarity_that_cannot_be_loaded_is_refused_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, **_: Any) -> None:
        raise OSError(f"no {path}")

    library = SimpleNamespace(SentenceTransformer=refuse)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    run = config(tmp_path, evaluation=EvaluationConfig(similarity="some/where"))
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
    run = config(cache, stream=StreamConfig(max_context=stream, reserve=256))
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
        build_core(config(cache, stream=stream))

    drop = StreamConfig(max_new_tokens=64, max_dst_tokens=48, reserve=100,
                        strategy=Strategy.DROP_MIDDLE)  # fmt: skip
    build_core(config(cache, compat=Compat.PROASSIST, stream=drop))  # its rules are others


def test_keys_that_cannot_be_moved_are_refused_before_training(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gpt2(_: ModelConfig, tokenizer: Any) -> GPT2LMHeadModel:
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_positions=8192, n_embd=8, n_layer=1, n_head=1)
        )

    monkeypatch.setattr(build, "build_backbone", gpt2)
    build_core(config(cache, stream=StreamConfig()))
    with pytest.raises(
        ConfigError, match=r"drop_middle must move kept keys .* not of gpt2; choose"
    ):
        build_core(config(cache))
    build_core(config(cache, compat=Compat.PROASSIST))  # it leaves them where they were


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

    run = config(cache, splitting=SplitConfig(method=method), stream=StreamConfig())
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
        build_core(config(cache, stream=stream))


def test_match_windows_of_no_data_set_are_refused(cache: Path) -> None:
    def run(name: str) -> RunConfig:
        windows = {name: [-1.5, 3.0]}
        return config(cache, evaluation=EvaluationConfig(similarity="words", windows=windows))

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
        return config(cache, data=data, stream=stream)

    build_core(run(knowledge=False))
    with pytest.raises(ConfigError, match=r"stream 'toy-val-.* leaves no room for frames of 1 in"):
        build_core(run(knowledge=True))


def test_streams_that_cannot_end_are_refused_before_training(cache: Path) -> None:
    def run(max_context: int) -> RunConfig:
        stream = StreamConfig(strategy=Strategy.NONE, max_context=max_context, reserve=256)
        return config(cache, splitting=SplitConfig(method=SplitMethod.CUT), stream=stream)

    build_core(run(4096))
    with pytest.raises(StreamError, match=r"'toy-val-.* frames are too many for stream\.strat"):
        build_core(run(400))


def test_batches_are_packed_where_rules_and_backbone_allow_it(cache: Path) -> None:
    def made(**changes: Any) -> tuple[bool, int]:
        run = config(cache, **changes)
        core = build_core(run)
        examples = build_examples(run, core, "train")
        batch = build_collate(run, core, "train")([examples[0, 0], examples[0, 0]])
        return packs(run, core), len(batch.input_ids)

    padded = DataConfig(cache=str(cache), encoder="thumbnail4", packing=False,
                        toy=ToyConfig(num_train=1, num_val=1, num_test=1))  # fmt: skip
    assert made() == (True, 1)
    assert made(data=padded) == (False, 2)
    tiny = TinyConfig(hidden_size=16, num_layers=2, num_heads=2)
    dst = ModelConfig(chat="dst_ext", tiny=tiny)
    assert made(model=dst) == (True, 1)
    hides = build_core(config(cache, model=dst, compat=Compat.PROASSIST))
    hides.chat.tokenizer.pad_token_id = None  # the end of turn stands for padding, and is hidden
    for model in (dst, replace(dst, dst=False)):
        assert not packs(config(cache, model=model, compat=Compat.PROASSIST), hides)


def test_training_leaves_out_long_silence_and_evaluation_does_not(cache: Path) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    data = DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, max_seq_len=320)
    run = config(cache, data=data, splitting=SplitConfig(min_context_s=0, max_context_s=0))
    core = build_core(run)

    (talk,) = core.data["val"].conversations
    parts = core.evaluator._forcing.split(talk)
    assert len(parts) > 1
    assert sum(part.num_frames for part in parts) == talk.num_frames
    examples = build_examples(run, core, "val")
    num_trained = sum(len(examples[0, i].image_features) for i in range(len(examples)))
    assert 0 < num_trained < talk.num_frames
    with pytest.warns(UserWarning, match=r"train are split at data\.max_seq_len=320"):
        build_datamodule(run, core)


def test_only_training_samples_and_smooths_its_decisions(cache: Path) -> None:
    def examples(split: str, **objective: Any) -> list[Example]:
        run = config(cache, objective=ObjectiveConfig(**objective))
        made = build_examples(run, core, split)
        return [made[epoch, i] for i in range(len(made)) for epoch in range(2)]

    def silent(made: list[Example]) -> list[int]:
        return [int(example.neg_frame_mask.sum()) for example in made]

    def frames(made: list[Example]) -> list[int]:
        return [int((example.neg_frame_mask | example.pos_frame_mask).sum()) for example in made]

    core = build_core(config(cache))
    every = examples("train", turn_frames=1)
    turns = examples("train", turn_frames=2)
    none = examples("train", turn_frames=2, rho=0.0)
    spans = [int((example.pos_frame_mask | example.dst_pos_frame_mask).sum()) for example in every]
    assert all(few < many for few, many in zip(silent(turns), silent(every), strict=True))
    assert frames(none) == spans  # of the other turns, nothing
    assert all(few < many for few, many in zip(frames(none), frames(turns), strict=True))
    half = examples("train", turn_frames=2, rho=0.5)
    kept = [(a - b, c - b) for a, b, c in zip(*map(frames, (half, none, turns)), strict=True)]
    assert all(few == many // 2 for few, many in kept)

    plain = examples("val")
    changed = examples("val", turn_frames=2, rho=0.0, smoothing_s=1.0)
    assert silent(changed) == silent(plain)
    assert all(torch.equal(a.speak_targets, b.speak_targets)
               and torch.equal(a.dst_targets, b.dst_targets)
               for a, b in zip(changed, plain, strict=True))  # fmt: skip
    smooth = examples("train", smoothing_s=1.0)
    for name in ("speak_targets", "dst_targets"):
        hard = torch.cat([getattr(example, name) for example in (*every, *plain)])
        assert set(hard.tolist()) == {0.0, 1.0}, name
        soft = torch.cat([getattr(example, name) for example in smooth])
        assert ((soft > 0) & (soft < 1)).any(), name


def test_summaries_longer_than_streams_write_are_told_of_where_they_are_taught(cache: Path) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    data = DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, max_seq_len=320)
    stream = StreamConfig(
        strategy=Strategy.SUMMARIZE, max_context=832, max_new_tokens=2, max_dst_tokens=2,
        max_summary_tokens=96,
    )  # fmt: skip
    run = config(cache, data=data, splitting=SplitConfig(method=SplitMethod.SUMMARIZE),
                 stream=stream)  # fmt: skip
    core = build_core(run)

    with pytest.warns(UserWarning, match=r"up to 256 tokens are learnt, but .* cut them off at 96"):
        build_datamodule(run, core)


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
    made = config(cache)
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


def test_a_run_without_a_head_for_the_state_is_as_on_data_without_steps(cache: Path) -> None:
    def made(*, steps: bool) -> tuple[RunConfig, Core]:
        run = config(cache)
        data = replace(run.data, dialogue=replace(run.data.dialogue, steps=steps), max_seq_len=320)
        run = replace(run, data=data, model=replace(run.model, dst=False))
        return run, build_core(run)

    (run, core), (plain_run, plain) = made(steps=True), made(steps=False)

    assert all(conversation.steps for conversation in core.data["val"])
    assert core.chat.tokenizer.get_vocab() == plain.chat.tokenizer.get_vocab()
    opening = core.chat.opening_ids(Role.DST)[0]
    for split in ("train", "val"):
        examples, expected = (build_examples(*c, split) for c in ((run, core), (plain_run, plain)))
        assert len(examples) == len(expected) > len(core.data[split])  # in parts
        for i in range(len(examples)):
            ours, theirs = examples[0, i], expected[0, i]
            assert opening not in ours.input_ids.tolist()
            for f in fields(ours):
                mine, other = getattr(ours, f.name), getattr(theirs, f.name)
                assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other
    ours, theirs = (c.evaluator.quick(c.model, 1) for c in (core, plain))
    assert ours.metrics == theirs.metrics
    assert not any("dst" in name for name in ours.metrics)
    assert ours.transcripts == theirs.transcripts
    baselines = core.evaluator._unlooking("test")
    assert not any(transcript.steps for found in baselines.values() for transcript in found)
    assert baselines == plain.evaluator._unlooking("test")


def test_rules_that_know_no_state_cannot_teach_it(cache: Path) -> None:
    run = config(cache, compat=Compat.PROASSIST)
    with pytest.raises(ConfigError, match=r"compat=proassist tracks no state .*model\.dst=false"):
        build_examples(run, build_core(run), "train")


def test_a_backbone_that_cannot_pack_is_told_of_and_padded(cache: Path) -> None:
    run = config(cache)
    core = build_core(run)
    core.model.can_pack = False

    assert not packs(run, core)
    with pytest.warns(UserWarning, match=r"is a llama, which is not known .* data\.packing=false"):
        build_datamodule(run, core)
    run.data.packing = False
    build_datamodule(run, core)


def test_what_loader_processes_are_given_can_be_sent_to_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(cache)
    core = build_core(run)
    examples, make = build_examples(run, core, "train"), build_collate(run, core, "train")

    files = list[int]()
    monkeypatch.setattr(reduction, "DupFd", lambda file: files.append(file) or file)
    sent = reduction.ForkingPickler.dumps((examples, make))  # as spawn and forkserver do
    assert not files  # a forkserver takes no more than 256, and there are many conversations
    sent_examples, sent_make = pickle.loads(sent)

    ours, theirs = make([examples[2, 0]]), sent_make([sent_examples[2, 0]])
    for f in fields(ours):
        mine, other = getattr(ours, f.name), getattr(theirs, f.name)
        assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other
