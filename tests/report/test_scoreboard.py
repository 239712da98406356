from __future__ import annotations

import math

from proassist_lit.report.scoreboard import Scoreboard, make_scoreboard, spoken_name

from .fakes import fake_metrics


def cells(board: Scoreboard, name: str) -> dict[str, tuple[float | None, bool]]:
    row = next(row for row in board.headline + board.rest if row.name == name)
    return dict(zip(board.columns, zip(row.values, row.best, strict=True), strict=True))


def test_columns_are_val_test_then_baselines_in_order() -> None:
    board = make_scoreboard({**fake_metrics(), "baseline/another/test/utterance_f1": 0.1})
    assert board.columns == ("val", "test", "always_silent", "always_speak", "clock", "blind",
                             "blind_zeros", "another")  # fmt: skip


def test_headline_comes_first_in_its_order_and_nothing_is_lost() -> None:
    metrics = fake_metrics()
    board = make_scoreboard(metrics)
    assert [row.name for row in board.headline] == [
        "utterance_f1",
        "content_accuracy",
        "dst_update_f1",
        "dst_joint_goal_accuracy",
        "speak_f1",
        "utterance_precision",
        "utterance_recall",
        "utterance_time_difference_s",
    ]
    names = {row.name for row in board.headline + board.rest} | {n for n, _ in board.settings}
    assert names == {key.rpartition("/")[2] for key in metrics if key != "train/loss"}
    assert board.others == (("train/loss", 0.213),)


def test_best_is_among_test_and_baselines_never_val() -> None:
    board = make_scoreboard(
        {"val/utterance_f1": 0.9, "test/utterance_f1": 0.5, "baseline/clock/test/utterance_f1": 0.6}
    )
    assert cells(board, "utterance_f1") == {
        "val": (0.9, False),
        "test": (0.5, False),
        "clock": (0.6, True),
    }


def test_lower_is_better_where_it_is_and_silence_earns_nothing() -> None:
    board = make_scoreboard(
        {
            "test/utterance_redundant_rate": 0.2,
            "test/utterance_recall": 0.8,
            "baseline/clock/test/utterance_redundant_rate": 0.6,
            "baseline/clock/test/utterance_recall": 0.3,
            "baseline/always_silent/test/utterance_redundant_rate": 0.0,
            "baseline/always_silent/test/utterance_recall": 0.0,
        }
    )
    assert cells(board, "utterance_redundant_rate")["test"] == (0.2, True)
    assert cells(board, "utterance_redundant_rate")["always_silent"] == (0.0, False)


def test_time_difference_nearest_to_zero_is_best() -> None:
    name = "utterance_time_difference_s"
    board = make_scoreboard({f"test/{name}": -0.2, f"baseline/clock/test/{name}": -1.5})
    assert cells(board, name)["test"] == (-0.2, True)


def test_ties_are_all_best_and_a_lone_value_is_not() -> None:
    board = make_scoreboard(
        {
            "test/utterance_bleu_4": 0.5,
            "baseline/blind/test/utterance_bleu_4": 0.5,
            "test/utterance_cider": 0.5,
        }
    )
    assert [best for _, best in cells(board, "utterance_bleu_4").values()] == [True, True]
    assert not any(best for _, best in cells(board, "utterance_cider").values())


def test_metric_of_unknown_direction_has_no_winner() -> None:
    board = make_scoreboard({"test/odd": 0.5, "baseline/blind/test/odd": 0.2}, {"test/odd": 0.1})
    [row] = board.rest
    assert not any(row.best)
    assert (row.change, row.better) == (0.4, None)


def test_counts_have_no_winner_and_nan_is_no_value() -> None:
    board = make_scoreboard(
        {
            "test/utterance_num_missed": 10.0,
            "baseline/blind/test/utterance_num_missed": 20.0,
            "test/bleu_1": math.nan,
        }
    )
    assert not any(best for _, best in cells(board, "utterance_num_missed").values())
    assert cells(board, "bleu_1")["test"] == (None, False)


def test_metrics_of_a_data_set_are_no_settings_whatever_it_is_called() -> None:
    metrics = {
        f"test/{name}/utterance_f1": 0.5
        for name in ("theta_cleaning", "theta_s", "theta", "threshold")
    } | {"test/theta_speak": 0.4}
    board = make_scoreboard(metrics, metrics, "before")
    assert board.settings == (("theta_speak", "0.4"),)
    assert cells(board, "theta_cleaning/utterance_f1") == {"test": (0.5, False)}
    assert len(board.rest) == 4
    assert {row.earlier for row in board.rest} == {0.5}


def test_thresholds_alone_are_settings_among_the_numbers() -> None:
    numbers = {"test/window_f1": 0.5, "test/interval_recall": 0.25, "test/theta_dst": 0.4}
    board = make_scoreboard(numbers)
    assert board.settings == (("theta_dst", "0.4"),)
    assert [row.name for row in board.rest] == ["interval_recall", "window_f1"]


def test_settings_are_merged_where_splits_agree() -> None:
    board = make_scoreboard(
        {
            "val/theta_speak": 0.4,
            "test/theta_speak": 0.4,
            "similarity": "minilm",
            "val/theta_dst": 0.3,
            "test/theta_dst": 0.35,
            "baseline/clock/test/theta_speak": 0.5,
        }
    )
    assert board.settings == (
        ("theta_speak", "val 0.4, test 0.4, clock 0.5"),
        ("similarity", "minilm"),
        ("theta_dst", "val 0.3, test 0.35"),
    )
    assert board.headline == board.rest == ()


def test_key_result_names_the_best_baseline() -> None:
    board = make_scoreboard(
        {
            "test/utterance_f1": 0.8,
            "val/utterance_f1": 0.95,
            "baseline/clock/test/utterance_f1": 0.3,
            "baseline/blind/test/utterance_f1": 0.4,
            "test/speak_f1": 0.7,
        }
    )
    first, second = board.key_results
    assert (first.name, first.value, first.baseline, first.baseline_value) == (
        "utterance_f1", 0.8, "blind", 0.4,
    )  # fmt: skip
    assert (second.name, second.baseline, second.baseline_value) == ("speak_f1", "", None)


def test_earlier_run_is_compared_on_test_by_difference_and_direction() -> None:
    board = make_scoreboard(
        {
            "val/utterance_f1": 0.9,
            "test/utterance_f1": 0.8,
            "test/utterance_time_difference_s": 0.5,
            "test/utterance_num_missed": 3.0,
            "test/content_accuracy": 0.7,
            "test/speak_f1": 0.6,
        },
        {
            "val/utterance_f1": 0.1,
            "test/utterance_f1": 0.75,
            "test/utterance_time_difference_s": -0.2,
            "test/utterance_num_missed": 5.0,
            "test/content_accuracy": 0.7,
            "test/bleu_1": 0.4,
            "baseline/clock/test/utterance_f1": 0.3,
        },
    )
    compared = {
        row.name: (row.earlier, row.change and round(row.change, 9), row.better)
        for row in board.headline + board.rest
    }
    assert compared == {
        "utterance_f1": (0.75, 0.05, True),
        "utterance_time_difference_s": (-0.2, 0.7, False),  # further from zero
        "utterance_num_missed": (5.0, -2.0, None),
        "content_accuracy": (0.7, 0.0, None),
        "speak_f1": (None, None, None),
        "bleu_1": (0.4, None, None),  # this run has none
    }
    assert board.columns == ("val", "test")  # its baselines and its val are its own affair
    key = board.key_results[0]
    assert (key.name, round(key.change or 0, 9), key.better) == ("utterance_f1", 0.05, True)


def test_earlier_run_never_competes_for_best() -> None:
    board = make_scoreboard(
        {"test/utterance_f1": 0.5, "baseline/clock/test/utterance_f1": 0.4},
        {"test/utterance_f1": 0.9},
    )
    assert cells(board, "utterance_f1")["test"] == (0.5, True)


def test_settings_in_which_the_earlier_run_differs_are_said() -> None:
    board = make_scoreboard(
        {
            "similarity": "minilm",
            "test/theta_speak": 0.4,
            "val/theta_dst": 0.3,
            "test/theta_dst": 0.2,
        },
        {
            "similarity": "mpnet",
            "test/theta_speak": 0.4,
            "test/theta_dst": 0.25,
            "test/theta_rise": 2.0,
        },
        "run 7",
    )
    assert dict(board.settings) == {
        "similarity": "minilm (run 7: mpnet)",
        "theta_speak": "0.4",
        "theta_dst": "val 0.3, test 0.2 (run 7: 0.25)",
        "theta_rise": "run 7: 2",
    }


def test_no_metrics_make_an_empty_board() -> None:
    board = make_scoreboard({})
    assert board.columns == board.headline == board.rest == board.key_results == ()


def test_names_are_spelt_for_people() -> None:
    assert spoken_name("dst_update_f1") == "DST update F1"
    assert spoken_name("utterance_rouge_l") == "utterance ROUGE L"
    assert spoken_name("utterance_time_diff_s") == "utterance time diff (s)"


def test_without_a_test_split_val_is_what_baselines_stand_beside() -> None:
    numbers = {
        "val/utterance_f1": 0.7, "val/speak_f1": 0.9, "baseline/blind/val/utterance_f1": 0.1,
        "baseline/clock/val/utterance_f1": 0.2,
    }  # fmt: skip
    board = make_scoreboard(numbers, {"val/utterance_f1": 0.6, "test/utterance_f1": 0.1}, "before")

    assert (board.split, board.columns) == ("val", ("val", "clock", "blind"))
    f1 = next(row for row in board.headline if row.name == "utterance_f1")
    assert (f1.values, f1.best) == ((0.7, 0.2, 0.1), (True, False, False))
    assert (f1.earlier, f1.better) == (0.6, True)
    [key, speak] = board.key_results
    assert (key.name, key.value, key.baseline, key.baseline_value) == (
        "utterance_f1", 0.7, "clock", 0.2,
    )  # fmt: skip
    assert (speak.name, speak.baseline) == ("speak_f1", "")

    tested = make_scoreboard({**numbers, "test/utterance_f1": 0.5})
    assert (tested.split, tested.columns) == ("test", ("val", "test"))
