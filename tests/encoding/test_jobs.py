from __future__ import annotations

from pathlib import Path

import pytest

from proassist_lit.encoding.jobs import Job, Shard, choose_shard, find_jobs
from proassist_lit.errors import ConfigError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_videos_keep_their_places(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    touch(videos / "b.mp4", videos / "a/c.d.MKV", videos / "notes.txt", tmp_path / "single.bin")

    jobs = find_jobs([videos, tmp_path / "single.bin"], out, ".arrow")

    assert jobs == [
        Job(videos / "a/c.d.MKV", out / "a/c.d.arrow"),
        Job(videos / "b.mp4", out / "b.arrow"),
        Job(tmp_path / "single.bin", out / "single.arrow"),
    ]


def test_linked_folders_are_searched_and_hidden_files_are_not(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    touch(tmp_path / "elsewhere/a.mp4", videos / "b.mp4", videos / "._b.mp4")
    touch(videos / ".trash/c.mp4", tmp_path / ".kept/d.mp4")
    (videos / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(videos)
    (videos / "again").symlink_to(videos / "linked")
    (videos / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")

    jobs = find_jobs([videos, tmp_path / ".kept"], out, ".arrow")

    assert [job.target.relative_to(out).as_posix() for job in jobs] == [
        "again/a.arrow", "b.arrow", "d.arrow", "linked/a.arrow"
    ]  # fmt: skip


def test_video_named_twice_is_one_job(tmp_path: Path) -> None:
    touch(tmp_path / "v.mp4")
    assert len(find_jobs([tmp_path, tmp_path / "v.mp4"], tmp_path / "out", ".arrow")) == 1


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a/v.mp4", tmp_path / "b/v.mkv")
    with pytest.raises(ConfigError, match=r"a/v\.mp4 and .*b/v\.mkv would both become .*rename"):
        find_jobs([tmp_path / "a", tmp_path / "b"], tmp_path, ".safetensors")
    assert len(find_jobs([tmp_path], tmp_path, ".safetensors")) == 2


@pytest.mark.parametrize(("kept", "wanted"), [("arrow", "safetensors"), ("safetensors", "arrow")])
def test_features_of_the_other_format_are_refused(kept: str, wanted: str, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    touch(videos / "a/c.d.mp4", out / f"of_another_video.{kept}")
    assert find_jobs([videos], out, f".{wanted}")
    touch(out / f"a/c.d.{kept}")
    with pytest.raises(
        ConfigError, match=rf"a/c\.d\.{kept}: c\.d\.{wanted} would .*before \.safe.*another --out"
    ):
        find_jobs([videos], out, f".{wanted}")


def test_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no video \(\.3gp, .*\); name another folder"):
        find_jobs([tmp_path], tmp_path, ".safetensors")
    absent = [tmp_path / "a.mp4", tmp_path / "b"]
    with pytest.raises(ConfigError, match=r"a\.mp4: there is no such .*\n.*/b: there is no such"):
        find_jobs(absent, tmp_path, ".safetensors")


ARRAY = {
    "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2",
    "SLURM_ARRAY_TASK_COUNT": "5",
}  # fmt: skip
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_NTASKS": "6", "SLURM_PROCID": "1"}
BATCH = {"SLURM_NTASKS": "6", "SLURM_PROCID": "0"}
RANKS = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("text", "environment", "index", "count"),
    [
        ("auto", {}, 0, 1),
        ("auto", ARRAY, 3, 5),
        ("auto", RANKS, 2, 4),
        ("auto", ARRAY | RANKS, 14, 20),
        ("auto", STEP, 1, 3),
        ("auto", BATCH, 0, 1),  # sbatch without srun: one process, whatever was asked for
        ("auto", {"SLURM_STEP_ID": "0"} | BATCH, 0, 6),
        ("auto", ARRAY | STEP, 10, 15),
        ("auto", STEP | RANKS, 2, 4),  # torchrun counts the machines, too
        ("none", ARRAY | RANKS, 0, 1),
        ("none", STEP, 0, 1),
        ("1/3", ARRAY | RANKS, 1, 3),
        ("0/1", {}, 0, 1),
    ],
)
def test_shard_is_found(text: str, environment: dict[str, str], index: int, count: int) -> None:
    shard = choose_shard(text, environment)
    assert (shard.index, shard.count) == (index, count)


@pytest.mark.parametrize("text", ["3/3", "1", "a/2", "-1/2", "1/0", "", "1/"])
def test_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--shard {text}: give i/n with i from 0 to n - 1"):
        choose_shard(text, {})


def test_odd_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match="the environment variable RANK is 'x', not a number"):
        choose_shard("auto", {"RANK": "x", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="torchrun says part 2 of 2, from 0; give --shard i/n"):
        choose_shard("auto", {"RANK": "2", "WORLD_SIZE": "2"})


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_everything_out(count: int) -> None:
    jobs = [Job(Path(f"{i}.mp4"), Path(f"{i}.arrow")) for i in range(5)]
    parts = [Shard(i, count).of(jobs) for i in range(count)]
    assert sorted((job for part in parts for job in part), key=str) == jobs
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
