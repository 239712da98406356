from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.paper.jobs import make_jobs
from benchmarks.paper.plan import PLAN, Row, read_plan
from benchmarks.paper.settings import check_rows, prepare_data
from proassist_lit.config import RunConfig
from proassist_lit.data.config import DataConfig
from proassist_lit.data.generate import generated_folder
from proassist_lit.data.sources.toy import ToyConfig
from proassist_lit.errors import ConfigError
from tests.benchmarks.paper_plans import plan_of, table, with_set


def test_select_takes_tables_and_rows_with_what_they_evaluate() -> None:
    plan = plan_of(table("two"), table("again", name="more"), table("cooked", name="c", cook=True))

    def names(*only: str, cook: bool = False, without: tuple[str, ...] = ()) -> list[str]:
        return [row.name for row in plan.select(only, cook=cook, without=without)]

    assert names() == ["one", "two", "again"]
    assert names(cook=True) == ["one", "two", "again", "cooked"]
    assert names("more/again") == ["one", "again"]
    assert names("first") == ["two"]
    assert names(without=("more",)) == ["two"]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("firt", r"--only firt: there is no table 'firt'; the nearest is 'first'"),
        ("first/tow", r"--only first/tow: there is no row 'tow'; the nearest is 'two'"),
        ("c", r"--only: cooked needs the annotation files of CaptainCook4D; name .* --cook DIR"),
    ],
)
def test_select_refuses_what_is_not_there(only: str, message: str) -> None:
    plan = plan_of(table("two"), table("cooked", name="c", cook=True))
    with pytest.raises(ConfigError, match=message):
        plan.select([only], cook=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {"a": {"label": "A", "experiment": "x", "sett": []}}}, "no key 'sett'.*'set'"),
        ({"rows": {"a": {"experiment": "x"}}}, r"row a: has no label; add it"),
        ({"rows": {"a": {"label": "A"}}}, r"row a: give it an experiment, or a row"),
        ({"rows": {"a": {"label": "A", "of": "b"}}}, r"row a: of 'b' is no row that trains"),
        ({"rows": {"a": {"label": "A", "experiment": "x", "set": ["k"]}}}, "'k' is no KEY=VALUE"),
        ({"since": {"toi": "2026-11-27 01:50"}}, r"since: there is no data set 'toi'.*'toy'"),
        ({"since": {"toy": "2026-11-27"}}, r"since: toy: .* is no time; write 'YYYY-MM-DD HH:MM'"),
        ({"tables": [{"rows": ["b"]}]}, r"table t: there is no row 'b'"),
        ({"tables": [{"metrics": ["f2"]}]}, r"table t: there is no metric 'f2'"),
        ({"tables": [{"cook": True}]}, r"table t: row a differs in cook"),
        ({"tables": [{"published": {"F1": {"b": 1.0}}}]}, r"published 'F1': there is no row 'b'"),
        (
            {"tables": [{"claims": [{"says": "s", "metric": "f1", "row": "a"}]}]},
            r"the claim 's' needs one of better, same",
        ),
        (
            {
                "tables": [
                    {
                        "claims": [
                            {"says": "s", "metric": "f1", "row": "a", "at_least": 0, "rises": True}
                        ]
                    }
                ]
            },
            r"the claim 's' needs one of better, same",
        ),
        ({"tables": [{"found": "It is 0.5 or .25."}]}, r"found names 0\.5, \.25, .* make it a cl"),
    ],
)
def test_a_wrong_plan_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    whole = {"name": "t", "title": "T", "about": "", "paper": "", "rows": ["a"], "metrics": ["f1"]}
    data: dict[str, object] = {
        "metrics": {"f1": "F1"}, "tables": [{}],
        "rows": {"a": {"label": "A", "experiment": "x"}},
    } | change  # fmt: skip
    data["tables"] = [whole | entry for entry in data["tables"]]  # type: ignore[attr-defined]
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        read_plan(path)


@pytest.mark.road
def test_the_plan_is_right_and_every_row_composes(tmp_path: Path) -> None:
    plan = read_plan(PLAN)
    jobs = make_jobs(plan.select([], cook=True), tmp_path, seeds=(1,), root=tmp_path)

    assert len(check_rows(jobs)) == len(plan.rows)
    assert {name for table in plan.tables for name in table.rows} == set(plan.rows)


def test_rows_with_unknown_settings_are_all_named(tmp_path: Path) -> None:
    rows = [
        with_set("one", "objective.roh=0.1"),
        with_set("two"),
        Row(name="three", label="", of="two", set=("stream.stategy=drop_all",)),
    ]
    with pytest.raises(ConfigError, match=r"row one: .*objective\.rho.*\nrow three: .*strategy"):
        check_rows(make_jobs(rows, tmp_path, seeds=(1,)))


def test_data_is_drawn_once_and_not_where_it_is_prepared(tmp_path: Path) -> None:
    toy = ToyConfig(num_train=1, num_val=1, num_test=1)
    drawn = DataConfig(toy=toy, cache=str(tmp_path / "data"))
    prepared = DataConfig(source="proassist", root=str(tmp_path))
    configs = [RunConfig(data=drawn), RunConfig(data=drawn), RunConfig(data=prepared)]
    said: list[str] = []

    prepare_data(configs, said.append)
    folder = generated_folder(drawn)
    assert said == [f"drawing {folder}"]
    assert (folder / "manifest.json").is_file()

    prepare_data(configs, said.append)
    assert len(said) == 1
