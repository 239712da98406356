from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from omegaconf import OmegaConf

from proassist_lit.config import RunConfig
from proassist_lit.config_schema import Schema, from_plain, plain_twin, read_config, to_plain
from proassist_lit.errors import ConfigError


class Colour(Enum):
    RED = "rot"
    BLUE = "blau"


class Number(Enum):
    ONE = 1


@dataclass(kw_only=True)
class Inner:
    size: int = 3
    share: float | None = None
    colours: list[Colour] = field(default_factory=lambda: [Colour.RED])


@dataclass(kw_only=True)
class Root:
    name: str = "x"
    on: bool = True
    rate: float = 0.5
    colour: Colour = Colour.RED
    fruit: Annotated[str, ("pear", "plum")] = "pear"
    number: Number = Number.ONE
    sizes: dict[str, int] = field(default_factory=dict)
    anything: Any = None
    inner: Inner = field(default_factory=lambda: Inner(size=7))

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ConfigError("name is bad.")


def faults(data: object, key: str = "") -> list[tuple[str, str]]:
    return list(Schema(Root).faults(data, key))


@pytest.mark.parametrize(
    ("data", "where", "said"),
    [
        ({"naem": 1}, "naem", "no key or config group 'naem'; the nearest is 'name'"),
        ({"inner": {"szie": 1}}, "inner.szie", "'inner' has no key 'szie'; .*'inner.size'"),
        ({"size": 1}, "size", "the nearest is 'inner.size'"),
        ({"inner.size": 1}, "inner.size", "nested keys"),
        ({"inner": None}, "inner", "inner must be a section, got None"),
        ({"inner": 3}, "inner", "inner must be a section, got 3"),
        ({"inner": {"size": "abc"}}, "inner.size", "must be int, got 'abc'"),
        ({"inner": {"size": 2.5}}, "inner.size", "must be int, got 2.5"),
        ({"inner": {"size": True}}, "inner.size", "must be int, got True"),
        ({"inner": {"size": None}}, "inner.size", "must be int, got None"),
        ({"inner": {"share": "x"}}, "inner.share", "must be float or null"),
        ({"rate": [1]}, "rate", "must be float"),
        ({"on": "perhaps"}, "on", "must be bool"),
        ({"name": False}, "name", "must be str, got False; put quotes"),
        ({"name": ["x"]}, "name", "must be str"),
        ({"colour": "blue"}, "colour", r"must be rot\|blau, got 'blue'; the nearest is 'blau'"),
        ({"fruit": "plump"}, "fruit", r"must be pear\|plum, got 'plump'; the nearest is 'plum'"),
        ({"fruit": 3}, "fruit", r"must be pear\|plum, got 3\."),
        ({"number": 1}, "number", "must be ONE"),
        ({"inner": {"colours": "rot"}}, "inner.colours", r"must be list of rot\|blau"),
        ({"inner": {"colours": ["rot", "rto"]}}, "inner.colours.1", "the nearest is 'rot'"),
        ({"sizes": {"a": "x"}}, "sizes.a", "must be int"),
    ],
)
def test_faults_name_key_and_remedy(data: dict, where: str, said: str) -> None:
    found = faults(data)
    assert [key for key, _ in found] == [where]
    assert re.search(said, found[0][1]), found[0][1]


@pytest.mark.parametrize(
    ("data", "values"),
    [
        ({"name": 3}, {"name": "3"}),
        ({"rate": 1}, {"rate": 1.0}),
        ({"rate": "1e-3"}, {"rate": 1e-3}),
        ({"on": "no"}, {"on": False}),
        ({"on": 1}, {"on": True}),
        ({"colour": "blau"}, {"colour": Colour.BLUE}),
        ({"fruit": "plum"}, {"fruit": "plum"}),
        ({"number": "ONE"}, {"number": Number.ONE}),
        ({"sizes": {"a": "3"}}, {"sizes": {"a": 3}}),
        ({"anything": {"a": [1]}}, {"anything": {"a": [1]}}),
        ({"inner": {"share": None, "colours": ["blau"]}}, {"inner": Inner(colours=[Colour.BLUE])}),
    ],
)
def test_from_plain_converts_as_omegaconf_does(data: dict, values: dict) -> None:
    assert from_plain(Root, data) == Root(**values)


def test_interpolations_are_right_until_they_are_resolved() -> None:
    assert faults({"inner": {"size": "${x}"}, "rate": "???"}) == []
    with pytest.raises(ConfigError, match=r"^f\.yaml: inner\.size must be int"):
        from_plain(Root, {"inner": {"size": "${x}"}}, where="f.yaml")


def test_from_plain_says_all_faults_and_keeps_those_of_the_dataclass() -> None:
    with pytest.raises(ConfigError) as caught:
        from_plain(Root, {"nme": 1, "inner": {"size": "x"}})
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(ConfigError, match="name is bad"):
        from_plain(Root, {"name": "bad"})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("inner.szie", "'inner.size'"),
        ("name.x", "'name' is no section but str"),
        ("innr.a", "inner"),
    ],
)
def test_hint_refuses_unknown_keys(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Schema(Root).hint(key)


def test_hint_finds_parts_of_lists_and_sections_beside() -> None:
    schema = Schema(Root, beside={"tool": Inner})
    assert schema.hint("inner.colours.0") is Colour
    assert schema.hint("tool.size") is int
    assert schema.hint("anything.at.all") is Any
    assert "tool.size" not in dict(schema.settings())
    with pytest.raises(ConfigError):
        schema.hint("inner.tool")  # beside the whole only


def test_twin_has_the_defaults_and_takes_values_of_enums() -> None:
    config = Root(inner=Inner(size=9))
    composed = OmegaConf.structured(plain_twin(config))
    assert from_plain(Root, OmegaConf.to_container(composed)) == config
    composed.colour = "blau"
    composed.inner.colours = ["blau", "rot"]
    assert from_plain(Root, OmegaConf.to_container(composed)).colour is Colour.BLUE


def test_run_config_survives_the_way_through_plain_data() -> None:
    config = RunConfig(name="x", seed=5)
    config.data.dialogue.user_types.pop()
    config.trainer.optimizer.lr = 1e-5
    assert from_plain(RunConfig, to_plain(config)) == config


@pytest.mark.parametrize(("text", "said"), [("a: [", "cannot be read"), ("nme: 1", "no key")])
def test_read_config_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"config\.yaml: .*{said}"):
        read_config(RunConfig, tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(RunConfig, tmp_path / "none.yaml")
