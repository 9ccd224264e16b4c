"""Programs that work in turns: each in a process of its own that stays, told over its standard input what to do next.

So that what disturbs the machine disturbs all of them alike, and the first call of a process can be told from later ones.
A worker prints one RESULT line (see `processes`) when it is ready and one for every line that it is sent. It may be run by
another Python and imports nothing of ours then.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks.processes import RESULT, ROOT


class Worker:
    """`ready`: the numbers of its first line. Exits with its output when it fails."""

    def __init__(self, command: Sequence[str], library_threads: int = 1, cache: str | None = None) -> None:
        """`cache`: the folder in which numba keeps compiled code; None: where it always does."""
        counts = (
            "POLARS_MAX_THREADS",
            "NUMBA_NUM_THREADS",
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
        )
        environment = {**os.environ, **dict.fromkeys(counts, str(library_threads))}
        self.command = list(command)
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=environment | ({"NUMBA_CACHE_DIR": cache} if cache else {}),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.ready = self._answer()

    def ask(self, job: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        said = []
        for line in self.process.stdout or ():
            if line.startswith(RESULT):
                numbers: dict[str, Any] = json.loads(line.removeprefix(RESULT))
                return numbers
            said.append(line)
        code = self.process.wait()
        raise SystemExit(f"{' '.join(self.command)} ended with exit code {code}:\n{''.join(said)[-4000:]}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of the same job, again and again: as they pass, and of processors (on which others' work weighs little)."""

    seconds: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def times(self, ours: Timed) -> tuple[float, float, float]:
        """How many times as long as ours it took, by the best runs, by the medians and by the best processor times."""
        return self.best / ours.best, self.median / ours.median, min(self.cpu) / min(ours.cpu)


def in_turns(jobs: Mapping[str, tuple[Worker, str]], rounds: int) -> dict[str, Timed]:
    """Every job once a round, in turn; a first round is not counted. A worker answers with `seconds` and `cpu`."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, (worker, job) in jobs.items():
            answer = worker.ask(job)
            if turn:
                taken[name].append((float(answer["seconds"]), float(answer["cpu"])))
    return {name: Timed(*zip(*pairs, strict=True)) for name, pairs in taken.items()}
