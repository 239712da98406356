from __future__ import annotations

from benchmarks import encoding


def test_encoding_measures_all_three() -> None:
    found = encoding.measure(encoding.parse(["--quick", "--device", "cpu"]))

    assert set(found) == {
        "benchmark", "ratio", "encoder_busy", "encoder_alone", "pipeline", "decoding_alone",
        "settings", "machine",
    }  # fmt: skip
    for name in ("encoder_alone", "pipeline", "decoding_alone"):
        part = found[name]
        assert isinstance(part, dict)
        assert part["frames_per_s"] > 0
        assert 0 < part["cpu_share"] < 1.2
    settings = found["settings"]
    assert isinstance(settings, dict)
    assert settings["frames"] == 2 * 4 * 2
    assert isinstance(found["encoder_busy"], float)
    assert 0 < found["encoder_busy"] < 1
