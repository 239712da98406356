"""Runs the jobs of the study side by side, each in a process of its own; stops them gently."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from benchmarks.paper.jobs import ROOT, Job, cpu_name
from proassist_lit.processors import num_processors

GRACE_S = 60.0
"""How long a process has to leave its checkpoint before it is made to end."""

_POLL_S = 0.05

NOTED_EVERY_S = 60.0
"""What each run took so far is noted so often."""

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        done: came to their end now.
        skipped: had done so before.
        failed: job and reason.
        stopped: whether it was interrupted, or its time was over.
    """

    done: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    stopped: bool = False


class Runner:
    """Runs jobs, so many at a time.

    A job that evaluates the run of another waits for it, and for others that evaluate the same
    run: they keep their answers in one folder.

    Args:
        jobs: in the order in which they are begun.
        at_once: processes at a time; >= 1.
        threads: of each of them.
        seconds: after which all are stopped as by Ctrl-C; None for no limit.
        commit: of the sources, where git cannot tell.
        say: told every line of progress.
    """

    def __init__(
        self, jobs: Sequence[Job], *, at_once: int, threads: int, seconds: float | None = None,
        commit: str = "",
        say: Say = lambda line: print(line, flush=True),
    ) -> None:  # fmt: skip
        self._at_once, self._threads, self._commit, self._say = at_once, threads, commit, say
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._notes_at = time.monotonic() + NOTED_EVERY_S
        self._outcome = Outcome()
        self._waiting: list[Job] = []
        for job in jobs:
            job.check_settings()
            if job.is_done:
                self._outcome.skipped.append(job)
            else:
                self._waiting.append(job)
        self._running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
        self._total = len(self._waiting)
        self._spent_s = self._done_cost = 0.0

    def run(self) -> Outcome:
        """Run all; what fails is told in the end and stops nothing else."""
        if self._outcome.skipped:
            self._say(f"{len(self._outcome.skipped)} runs are there already")
        try:
            with _sigterm_interrupts():
                while self._waiting or self._running:
                    self._start_ready()
                    self._collect()
                    if self._ends is not None and time.monotonic() > self._ends:
                        raise KeyboardInterrupt
                    time.sleep(_POLL_S)
        except KeyboardInterrupt:
            self._outcome.stopped = True
            self._stop()
        return self._outcome

    def _start_ready(self) -> None:
        failed = {job.directory for job, _ in self._outcome.failed}
        for job in [j for j in self._waiting if j.base in failed]:
            self._waiting.remove(job)
            self._fail(job, "the run that it evaluates failed")
        busy = {job.base or job.directory for job in self._running}
        for job in list(self._waiting):
            if len(self._running) >= self._at_once:
                return
            if job.base is None or (job.base not in busy and (job.base / "metrics.json").is_file()):
                self._waiting.remove(job)
                busy.add(job.base or job.directory)
                self._start(job)
        if not self._running:  # what is left waits for runs that nobody will make
            for job in self._waiting:
                self._fail(job, f"{job.base} holds no metrics.json to evaluate")
            self._waiting = []

    def _start(self, job: Job) -> None:
        job.directory.mkdir(parents=True, exist_ok=True)
        job.write_machine(
            {
                "command": job.command, "cpu": cpu_name(), "cores": num_processors(),
                "threads": self._threads, "at_once": self._at_once,
                "commit": self._commit,
                "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            }
        )  # fmt: skip
        threads = str(self._threads)
        environment = os.environ | {
            "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        with job.log.open("ab") as log:
            process = subprocess.Popen(
                job.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it through us alone
            )  # fmt: skip
        before = float(job.read_machine().get("seconds", 0.0))  # of an interrupted start
        self._running[job] = (process, time.monotonic() - before)

    def _collect(self) -> None:
        is_noted = time.monotonic() > self._notes_at
        if is_noted:  # so that a kill loses no more
            self._notes_at = time.monotonic() + NOTED_EVERY_S
        for job, (process, started) in list(self._running.items()):
            code = process.poll()
            if code is None:
                if is_noted:
                    job.write_machine({"seconds": round(time.monotonic() - started, 1)})
                continue
            del self._running[job]
            seconds = time.monotonic() - started
            if code == 0 and job.is_done:
                job.write_machine({"seconds": round(seconds, 1)})
                self._outcome.done.append(job)
                self._spent_s += seconds
                self._done_cost += job.row.cost
                self._tell(f"{job.name} took {seconds:.0f} s")
            else:
                reason = f"exit code {code}" if code else "it left no metrics.json"
                self._fail(job, f"{reason}; see {job.log}")

    def _fail(self, job: Job, reason: str) -> None:
        self._outcome.failed.append((job, reason))
        self._tell(f"{job.name} FAILED: {reason}")

    def _tell(self, what: str) -> None:
        finished = len(self._outcome.done) + len(self._outcome.failed)
        line = f"[{finished}/{self._total}] {what}"
        if (left := self.left_s()) is not None and finished < self._total:
            line += f"; about {left / 60:.0f} min left"
        self._say(line)

    def left_s(self) -> float | None:
        """Estimate from what the finished jobs took; None before the first of them."""
        if not self._done_cost:
            return None
        pace = self._spent_s / self._done_cost
        now = time.monotonic()
        begun = [max(0.0, pace * j.row.cost - (now - t)) for j, (_, t) in self._running.items()]
        todo = sum(begun) + sum(pace * job.row.cost for job in self._waiting)
        return max(todo / self._at_once, max(begun, default=0.0))

    def _stop(self) -> None:
        """Let the processes leave their checkpoints; end those that do not."""
        self._say(f"stopping {len(self._running)} runs; the same command goes on with them")
        processes = [process for process, _ in self._running.values()]
        for process in processes:
            _signal(process, signal.SIGINT)
        ends = time.monotonic() + GRACE_S
        try:
            while any(p.poll() is None for p in processes) and time.monotonic() < ends:
                time.sleep(_POLL_S)
        finally:  # also after a second Ctrl-C
            for process in processes:
                _signal(process, signal.SIGKILL)
            for process in processes:
                process.wait()
        for job, (_, started) in self._running.items():
            job.write_machine({"seconds": round(time.monotonic() - started, 1)})


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send to the process alone if it still runs: its own children end with it."""
    if process.poll() is None:
        process.send_signal(number)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """A batch system that ends its job is answered as Ctrl-C is."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def summary(outcome: Outcome) -> str:
    """What is said in the end; the failed ones with their log files."""
    lines = [
        f"{len(outcome.done)} runs done, {len(outcome.skipped)} were there, "
        f"{len(outcome.failed)} failed" + (", stopped before the end" if outcome.stopped else "")
    ]
    lines += [f"  {job.name}: {reason}" for job, reason in outcome.failed]
    return "\n".join(lines)


def exit_code(outcome: Outcome) -> int:
    """0 if all is there, 130 after an interrupt, 1 if something failed."""
    return 130 if outcome.stopped else int(bool(outcome.failed))


def write_error(text: str) -> None:
    """One line of error for each of ``text``."""
    for line in text.splitlines():
        sys.stderr.write(f"error: {line}\n")
