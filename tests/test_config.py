from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from proassist_lit.config import Compat, RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.errors import ConfigError
from proassist_lit.evaluation.config import EvaluationConfig
from proassist_lit.model.config import Decision, HeadType, ModelConfig
from proassist_lit.objectives import ObjectiveConfig, ObjectiveKind, Turns
from proassist_lit.optimizer_config import OptimizerConfig, OptimizerKind
from proassist_lit.sequence.split_config import SplitConfig, SplitMethod
from proassist_lit.streaming.config import SpeakRule, Strategy, StreamConfig
from proassist_lit.trainer_config import Parallel, TrainerConfig

LEAST_ONE = ("log_every_steps", "accumulate", "save_top_k", "num_nodes")


def test_compat_refuses_a_strategy_that_the_reference_does_not_know() -> None:
    with pytest.raises(
        ConfigError, match=r"stream\.strategy=dst_refresh.*choose stream\.strategy="
    ):
        RunConfig(compat=Compat.PROASSIST)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(max_tokens=0), r"data\.max_tokens must be at least 1, got 0; null for"),
        (lambda: TrainerConfig(micro_tokens=0), r"trainer\.micro_tokens must be at least 1, got 0"),
        (lambda: TrainerConfig(devices="foo"), r"trainer\.devices is 'foo'; give a number of dev"),
        (lambda: TrainerConfig(devices="0"), r"trainer\.devices is '0'; give a number"),
        (lambda: TrainerConfig(peak_tflops=0.0), r"trainer\.peak_tflops must be > 0, got 0\.0"),
        (lambda: TrainerConfig(save_every_steps=-1), r"save_every_steps must be >= 0, got -1; 0"),
        (lambda: TrainerConfig(val_every_steps=-1), r"val_every_steps must be >= 0, got -1; 0 for"),
        (lambda: TrainerConfig(val_every_steps=0, patience=1), r"patience .* no effect .*steps=0"),
        (lambda: TrainerConfig(val_every_steps=0, save_top_k=2), r"save_top_k above 1 have no eff"),
        (lambda: TrainerConfig(gradient_clip=-0.5), r"gradient_clip must be >= 0, got -0\.5; 0"),
        (lambda: TrainerConfig(max_steps=-1), r"max_epochs are both without limit; set one of"),
        (
            lambda: TrainerConfig(
                optimizer=OptimizerConfig(kind=OptimizerKind.MUON), strategy=Parallel.FSDP2
            ),
            r"kind=muon works on whole matrices, .*; set trainer\.strategy=ddp, or",
        ),
        *(
            (
                partial(TrainerConfig, **{name: 0}),
                rf"trainer\.{name} must be at least 1, got 0\.",
            )
            for name in LEAST_ONE
        ),
        (
            lambda: RunConfig(
                data=DataConfig(max_tokens=500), objective=ObjectiveConfig(turns=Turns.SINGLE)
            ),
            r"data\.max_tokens counts whole conversations.*objective\.turns at shared",
        ),
    ],
    ids=[
        "max_tokens",
        "micro_tokens",
        "devices",
        "no device",
        "peak_tflops",
        "save_every_steps",
        "val_every_steps",
        "patience",
        "save_top_k of none",
        "gradient_clip",
        "no limit",
        "muon",
        *LEAST_ONE,
        "single",
    ],
)
def test_budgets_and_devices_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("compat", "chat", "strategy", "as_reference"),
    [
        (Compat.PROASSIST, "compact", Strategy.DROP_MIDDLE, True),
        (Compat.PROASSIST, "llama3", Strategy.SUMMARIZE, True),
        (Compat.PROASSIST, "dst_ext", Strategy.DST_REFRESH, False),
        (Compat.NONE, "compact", Strategy.DST_REFRESH, False),
    ],
)
def test_streams_are_answered_as_the_reference_does_with_its_own_sequences(
    compat: Compat, chat: str, strategy: Strategy, as_reference: bool
) -> None:
    run = RunConfig(
        compat=compat, model=ModelConfig(chat=chat), stream=StreamConfig(strategy=strategy)
    )

    assert run.streams_as_reference == as_reference


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"rates every frame, which objective\.kind=per_turn does not learn; set objective\.k"),
        (
            {"objective": ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB)},
            r"model\.decision=informative_relevance does not go with objective\.kind=token_prob",
        ),
        (
            {
                "objective": ObjectiveConfig(kind=ObjectiveKind.PER_TOKEN),
                "splitting": SplitConfig(method=SplitMethod.DROP_ALL),
            },
            r"splitting\.method=drop_all do not know what came before; choose another",
        ),
    ],
    ids=["per_turn", "token_prob", "drop_all"],
)
def test_two_heads_to_speak_are_refused_where_they_cannot_learn(
    settings: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig(model=ModelConfig(decision=Decision.INFORMATIVE_RELEVANCE), **settings)


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        (
            ModelConfig(decision=Decision.SILENT_TOKEN),
            ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB, speaking_binary_weight=2.0),
            r"speaking_binary_weight has no effect .*=silent_token, .*\.silent_logit_weight; leave",
        ),
        (
            ModelConfig(decision=Decision.SILENT_TOKEN, dst=False),
            ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB, pos_weight=5.0),
            r"pos_weight weighs yes-or-no .* model\.dst=false leaves no other head; leave it at 1",
        ),
        (
            ModelConfig(dst=False),
            ObjectiveConfig(dst_gen_weight=2.0),
            r"objective\.dst_gen_weight has no effect with model\.dst=false, .*; leave it at 1",
        ),
        (
            ModelConfig(dst=False),
            ObjectiveConfig(dst_gen_weight=0.0, dst_binary_weight=0.0),
            r"dst_gen_weight, objective\.dst_binary_weight have no effect .*; leave them at 1",
        ),
        (
            ModelConfig(),
            ObjectiveConfig(silent_logit_weight=0.1),
            r"silent_logit_weight has no effect .*objective\.speaking_binary_weight; leave it at 1",
        ),
        (
            ModelConfig(dst=False, dst_output_head=True),
            ObjectiveConfig(),
            r"dst_output_head=true writes updates, but model\.dst=false writes none; set it to",
        ),
        (
            ModelConfig(decision=Decision.OPENING_TOKEN, head=HeadType.MLP),
            ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB),
            r"head=mlp shapes decision heads, but model\.decision=opening_token has none; leave it",
        ),
        (
            ModelConfig(decision=Decision.SILENT_TOKEN, head=HeadType.MLP, dst=False),
            ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB),
            r"head=mlp .*\.decision=silent_token with model\.dst=false has none; leave it at lin",
        ),
    ],
    ids=[
        "silent_token",
        "pos_weight",
        "dst",
        "dst_both",
        "head",
        "dst_output_head",
        "no_head",
        "no_other_head",
    ],
)
def test_weights_and_heads_without_effect_are_refused(
    model: ModelConfig, objective: ObjectiveConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig(model=model, objective=objective)


def test_a_head_that_is_left_may_have_any_shape() -> None:
    """Where silence is a token, updates are decided by a head still."""
    RunConfig(
        model=ModelConfig(decision=Decision.SILENT_TOKEN, head=HeadType.MLP),
        objective=ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB),
    )


@pytest.mark.parametrize("kind", [ObjectiveKind.PER_TOKEN, ObjectiveKind.TOKEN_PROB])
def test_single_turns_are_refused_without_turns(kind: ObjectiveKind) -> None:
    message = r"turns=single needs .*per_turn, got \w+; leave .* at shared"
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(kind=kind, turns=Turns.SINGLE)
    ObjectiveConfig(kind=kind, turn_frames=2)  # the default of earlier versions: in many runs


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "latest"])
def test_a_name_that_names_no_directory_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"name is '{name}'; give a word without '/', it names"):
        RunConfig(name=name)


def test_smoothing_of_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"smoothing_s smooths a yes-or-no .*smoothing_s=0 or an"):
        RunConfig(
            model=ModelConfig(decision=Decision.SILENT_TOKEN),
            objective=ObjectiveConfig(kind=ObjectiveKind.TOKEN_PROB, smoothing_s=0.5),
        )


def test_thresholds_that_are_swept_have_the_range_of_the_rule() -> None:
    sweep = EvaluationConfig(sweep_speak=[0.5, 3.0])
    with pytest.raises(
        ConfigError, match=r"sweep_speak: thresholds must be in .*got \[3\.0\]; oth"
    ):
        RunConfig(evaluation=sweep)
    RunConfig(evaluation=sweep, stream=StreamConfig(rule=SpeakRule.RUNNING_SUM))
    with pytest.raises(ConfigError, match=r"sweep_speak: thresholds must be finite, got \[inf\]"):
        EvaluationConfig(sweep_speak=[0.5, float("inf")])
