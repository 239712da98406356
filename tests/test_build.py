"""What a configuration builds."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import pytest
import torch

from proassist_lit.build import Core, build_collate, build_core, build_examples, packs
from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.conversation import AssistantTurn
from proassist_lit.data.dataset import ConversationSet
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.lit.build import build_datamodule
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind
from proassist_lit.sequence.chat import Role
from proassist_lit.sequence.sampling import turn_ends
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.streaming.config import Strategy, StreamConfig
from proassist_lit.types import IGNORE_INDEX, Example
from tests.small_run import small_run


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("asked", [True, False])
def test_words_at_the_turns_of_the_reference_are_written_where_asked_for(
    asked: bool, cache: Path
) -> None:
    evaluation = EvaluationConfig(similarity="words", forced_words=asked)
    core = build_core(small_run(cache, evaluation=evaluation))

    scores = core.evaluator._forcing.scores(core.model, core.data["val"], 0.5)

    assert "forced_perplexity" in scores  # of the reference's own words, which nobody writes
    assert ("forced_rouge_l" in scores) == ("forced_bleu_4" in scores) == asked
    assert core.evaluator._forcing.max_new_tokens == (2 if asked else 0)  # as streams


@pytest.mark.parametrize("compat", Compat)
def test_compat_chooses_who_answers_the_streams(compat: Compat, cache: Path) -> None:
    core = build_core(small_run(cache, compat=compat))

    metrics = core.evaluator.quick(core.model, 1).metrics

    # The reference tracks no state, so it has neither decisions nor updates that could be scored.
    assert "val_stream/speak_f1" in metrics
    assert any("/dst_" in name for name in metrics) == (compat is Compat.NONE)


@pytest.mark.parametrize("compat", Compat)
def test_openings_are_learnt_where_streams_write_them(compat: Compat, cache: Path) -> None:
    small = small_run(cache, compat=compat)
    run = replace(small, model=replace(small.model, dst=False))
    core = build_core(run)

    example = build_examples(run, core, "train")[0, 0]
    spoken = example.pos_frame_mask.nonzero().flatten()

    assert run.model.chat == "compact"  # which by itself learns none
    (opening,) = core.chat.opening_ids(Role.ASSISTANT)
    assert (example.input_ids[spoken + 1] == opening).all()
    learnt = opening if compat is Compat.PROASSIST else IGNORE_INDEX
    assert (example.labels[spoken + 1] == learnt).all()
    assert len(spoken) > 3


def test_batches_are_packed_where_rules_and_backbone_allow_it(cache: Path) -> None:
    def made(**changes: Any) -> tuple[bool, int]:
        run = small_run(cache, **changes)
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
    hides = build_core(small_run(cache, model=dst, compat=Compat.PROASSIST))
    hides.chat.tokenizer.pad_token_id = None  # the end of turn stands for padding, and is hidden
    for model in (dst, replace(dst, dst=False)):
        assert not packs(small_run(cache, model=model, compat=Compat.PROASSIST), hides)


def test_training_leaves_out_long_silence_and_evaluation_does_not(cache: Path) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    data = DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, max_seq_len=320)
    run = small_run(cache, data=data, splitting=SplitConfig(min_context_s=0, max_context_s=0))
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
        run = small_run(cache, objective=ObjectiveConfig(**objective))
        made = build_examples(run, core, split)
        return [made[epoch, i] for i in range(len(made)) for epoch in range(2)]

    def silent(made: list[Example]) -> list[int]:
        return [int(example.neg_frame_mask.sum()) for example in made]

    def frames(made: list[Example]) -> list[int]:
        return [int((example.neg_frame_mask | example.pos_frame_mask).sum()) for example in made]

    core = build_core(small_run(cache))
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
    changed = examples("val", rho=0.0, smoothing_s=1.0)
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


def test_loss_on_val_asks_where_training_and_streams_do(cache: Path) -> None:
    core = build_core(small_run(cache))

    def decided(**objective: Any) -> list[list[bool]]:
        made = build_examples(small_run(cache, objective=ObjectiveConfig(**objective)), core, "val")
        masks = [made[0, i].neg_frame_mask | made[0, i].pos_frame_mask for i in range(len(made))]
        return [mask[made[0, i].image_mask].tolist() for i, mask in enumerate(masks)]

    for sequence, found in zip(
        build_examples(small_run(cache), core, "val").sequences,
        decided(turn_frames=2, rho=0.0),  # which thins out train alone
        strict=True,
    ):
        assert found == turn_ends(sequence, 2).tolist()
    assert decided(turn_frames=1) == decided(kind=ObjectiveKind.PER_TOKEN)  # everywhere
    assert decided(turn_frames=1) != decided(turn_frames=2)


def test_summaries_longer_than_streams_write_are_told_of_where_they_are_taught(cache: Path) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    data = DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, max_seq_len=320)
    stream = StreamConfig(
        strategy=Strategy.SUMMARIZE, max_context=832, max_new_tokens=2, max_dst_tokens=2,
        max_summary_tokens=96,
    )  # fmt: skip
    run = small_run(cache, data=data, splitting=SplitConfig(method=SplitMethod.SUMMARIZE),
                 stream=stream)  # fmt: skip
    core = build_core(run)

    with pytest.warns(UserWarning, match=r"up to 256 tokens are learnt, but .* cut them off at 96"):
        build_datamodule(run, core)


@pytest.mark.parametrize(
    ("method", "max_seq_len", "tells_progress", "why"),
    [
        (SplitMethod.SUMMARIZE, 320, True, None),
        (SplitMethod.SUMMARIZE, 320, False, r"Of its \d+ utterances 0 have a progress.*=96: give"),
        (SplitMethod.SUMMARIZE, 4096, True, r"fits into data\.max_seq_len=4096.* lower it"),
        (SplitMethod.DST_REFRESH, 320, True, r"Set splitting\.method=summarize, with which"),
    ],
    ids=["taught", "no_progress", "fits", "other_method"],
)
def test_streams_that_summarize_untaught_are_told_of(
    method: SplitMethod, max_seq_len: int, tells_progress: bool, why: str | None, cache: Path
) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    data = DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, max_seq_len=max_seq_len)
    stream = StreamConfig(strategy=Strategy.SUMMARIZE, max_context=832, max_new_tokens=2,
                          max_dst_tokens=2, max_summary_tokens=96)  # fmt: skip
    splitting = SplitConfig(method=method, max_summary_tokens=96)
    run = small_run(cache, data=data, splitting=splitting, stream=stream)
    core = build_core(run)
    if not tells_progress:
        core.data["train"] = untold(core.data["train"])

    if why is None:
        build_datamodule(run, core)
        return
    with pytest.warns(UserWarning, match=rf"strategy=summarize: .* no summary to learn.*{why}"):
        build_datamodule(run, core)
    begun = replace(run, model=replace(run.model, init_from="elsewhere"))
    build_datamodule(begun, core)  # it may have learnt to there


@pytest.mark.road
def test_conversations_that_lose_their_end_are_told_of(cache: Path) -> None:
    def build(method: SplitMethod, max_seq_len: int) -> None:
        toy = ToyConfig(num_train=3, num_val=1, num_test=1)
        data = DataConfig(cache=str(cache), encoder="thumbnail4", toy=toy, max_seq_len=max_seq_len)
        stream = StreamConfig(max_new_tokens=2, max_dst_tokens=2, max_context=512, reserve=256)
        run = small_run(cache, data=data, splitting=SplitConfig(method=method), stream=stream)
        core = build_core(run)
        longest.append(max(build_examples(run, core, "train").lengths))
        build_datamodule(run, core)

    longest: list[int] = []
    build(SplitMethod.CUT, 4096)
    with pytest.warns(UserWarning, match=r"=cut: 1 of 9 .*=\d+ and lose their end, up to 1"):
        build(SplitMethod.CUT, longest[0] - 1)
    build(SplitMethod.DROP_ALL, longest[0] - 1)


def untold(data: ConversationSet) -> ConversationSet:
    """The same recordings, of which nobody has told what was done so far."""
    return replace(data, conversations=tuple(
        replace(talk, turns=tuple(
            replace(turn, progress=None) if isinstance(turn, AssistantTurn) else turn
            for turn in talk.turns
        )) for talk in data.conversations
    ))  # fmt: skip


def test_a_run_without_a_head_for_the_state_is_as_on_data_without_steps(cache: Path) -> None:
    def made(*, steps: bool) -> tuple[RunConfig, Core]:
        run = small_run(cache)
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


def test_a_backbone_that_cannot_pack_is_told_of_and_padded(cache: Path) -> None:
    run = small_run(cache)
    core = build_core(run)
    core.model.can_pack = False

    assert not packs(run, core)
    with pytest.warns(UserWarning, match=r"is a llama, which is not known .* data\.packing=false"):
        build_datamodule(run, core)
    run.data.packing = False
    build_datamodule(run, core)


def test_positions_beyond_those_of_pretraining_are_told_of(cache: Path) -> None:
    run = small_run(cache)
    core = build_core(run)
    core.model.lm.config.max_position_embeddings = 2048
    build_datamodule(run, core)  # from scratch
    pretrained = replace(run, model=replace(run.model, backbone="some/llama"))

    with pytest.warns(UserWarning, match=r"2048 positions, but .*=4096 and stream\.max_context"):
        build_datamodule(pretrained, core)


def test_what_loader_processes_are_given_can_be_sent_to_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(cache)
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
