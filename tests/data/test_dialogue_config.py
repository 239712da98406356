from __future__ import annotations

import pytest

from proassist_lit.data.dialogue_config import DialogueConfig
from proassist_lit.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fps": 0.0}, r"data\.dialogue\.fps must be > 0 frames per second, got 0\.0"),
        ({"user_types": []}, r"user_types is empty; name at least one of no_talk"),
    ],
)
def test_dialogue_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DialogueConfig(**setting)
