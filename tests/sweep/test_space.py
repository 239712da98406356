from __future__ import annotations

import optuna
import pytest

from proassist_lit.errors import ConfigError
from proassist_lit.sweep.space import Choices, Numbers, SearchSpace


def dimension(argument: str) -> Choices | Numbers:
    [found] = SearchSpace.of({}, [argument]).dimensions.values()
    return found


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("objective.rho=interval(0,1)", Numbers(low=0, high=1, whole=False)),
        ("trainer.optimizer.lr=tag(log,interval(1e-4,1e-2))",
         Numbers(low=1e-4, high=1e-2, whole=False, log=True)),
        ("seed=interval(1,8)", Numbers(low=1, high=8, whole=True)),
        ("stream.theta_speak=interval(0.1,0.9)", Numbers(low=0.1, high=0.9, whole=False)),
        ("seed=range(1,8,3)", Numbers(low=1, high=7, whole=True, step=3)),
        ("seed=range(7,0,-3)", Numbers(low=1, high=7, whole=True, step=3)),
        ("seed=tag(log,range(1,9))", Numbers(low=1, high=8, whole=True, log=True, step=1)),
        ("objective.rho=range(0.1,0.8,0.2)", Numbers(low=0.1, high=0.7, whole=False, step=0.2)),
        ("+experiment=per_turn,per_token", Choices(texts=("per_turn", "per_token"))),
        ("seed=choice(3,1,2,1)", Choices(texts=("3", "1", "2"))),
        ("seed=shuffle(3,1)", Choices(texts=("3", "1"))),
        ("stream.theta_speak=null,0.001,true,'a b',[1,2]",
         Choices(texts=("null", "0.001", "True", "'a b'", "[1,2]"))),
    ],
)  # fmt: skip
def test_space_reads_the_grammar(argument: str, expected: Choices | Numbers) -> None:
    assert dimension(argument) == expected


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("+experiment=glob(per_*)", r"\+experiment=glob\(per_\*\): a search takes no glob"),
        ("model.backbone=interval(1,2)", r"backbone=.*for numbers; give the values"),
        ("objective=interval(1,2)", r"objective=.*for numbers"),
        ("seed=interval(0.5,2)", "ends of the interval must be whole"),
        ("objective.rho=interval(1,0.5)", "first number of an interval must not be above"),
        ("objective.rho=tag(log,interval(0,1))", "with the tag log all numbers must be above 0"),
        ("objective.rho=tag(fast,interval(0,1))", "the only tag is log, got fast"),
        ("seed=range(5,5)", "holds no number"),
        ("seed=range(1,5,0)", "its step is 0"),
        ("seed=tag(log,range(1,9,2))", "must be of whole numbers with step 1"),
        ("objective.rho=tag(log,range(0.1,0.9,1))", "must be of whole numbers with step 1"),
        ("seed=3", "hydra.sweeper: nothing is searched; give a key several values"),
    ],
)
def test_space_refuses_what_it_cannot_search(argument: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SearchSpace.of({}, [argument])


def test_space_names_all_faults_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)seed=glob.*\nmodel\.chat=interval"):
        SearchSpace.of({}, ["seed=glob(x)", "model.chat=interval(1,2)"])


def test_space_of_a_file_gives_way_to_the_command_line() -> None:
    params = {"seed": "1,2", "objective.rho": "interval(0,1)", "trainer.max_steps": 5,
              "stream.theta_dst": None, "model.dst": True}  # fmt: skip
    space = SearchSpace.of(params, ["+experiment=per_turn", "seed=7", "objective.rho=0.1,0.2"])

    assert space.dimensions == {"objective.rho": Choices(texts=("0.1", "0.2"))}
    assert space.fixed == (
        "seed=7", "trainer.max_steps=5", "stream.theta_dst=null", "model.dst=True",
        "+experiment=per_turn",
    )  # fmt: skip


def test_space_fills_in_what_is_drawn_where_it_was_given() -> None:
    params = {"objective.rho": "interval(0,1)", "name": "x"}
    arguments = ["+experiment=per_turn,per_token", "seed=1,2", "~trainer.clip", "+debug=fdr"]
    space = SearchSpace.of(params, arguments)

    filled = space.fill(["seed=2", "+experiment=per_turn", "objective.rho=0.5"])

    assert filled == [
        "objective.rho=0.5", "name=x", "+experiment=per_turn", "seed=2", "~trainer.clip",
        "+debug=fdr",
    ]  # fmt: skip
    assert space.fixed == ("name=x", "~trainer.clip", "+debug=fdr")


def test_space_draws_within_itself() -> None:
    arguments = ["seed=range(1,8,3)", "objective.rho=tag(log,interval(0.01,1))", "model.dst=no,yes"]
    space = SearchSpace.of({}, arguments)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))

    drawn = [space.suggest(study.ask()) for _ in range(20)]

    assert {d[0] for d in drawn} == {"seed=1", "seed=4", "seed=7"}
    values = [float(d[1].removeprefix("objective.rho=")) for d in drawn]
    assert 0.01 <= min(values) < 0.1 < max(values) <= 1
    assert {d[2] for d in drawn} == {"model.dst=no", "model.dst=yes"}
