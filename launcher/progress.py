"""What the user sees while the platform works: one live line per DAG run on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

MARKS = {"success": "✓", "failed": "✗", "upstream_failed": "✗", "skipped": "–", "running": "▶", "up_for_retry": "↻"}


class Progress:
    """Prints each step with its tasks as they change, and remembers how long every step took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self.timings: list[tuple[str, float]] = []

    def step(self, name: str) -> Step:
        return Step(self, self._console, name)

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, soft_wrap=True)

    def total(self) -> float:
        return time.monotonic() - self._begun

    def where_the_time_went(self) -> str:
        parts = " · ".join(f"{name} {seconds:.0f} s" for name, seconds in self.timings)
        return f"{parts} · total {self.total():.0f} s"


class Step:
    """One timed step; `tasks` is handed the task instances of its DAG run whenever they are polled."""

    def __init__(self, progress: Progress, console: Console, name: str) -> None:
        self._progress, self._console, self.name = progress, console, name
        self._seen: dict[tuple[str, int], str] = {}
        self._start = time.monotonic()
        self._lines = 0

    def __enter__(self) -> Step:
        self._start = time.monotonic()
        self._console.print(f"[bold]{self.name}[/bold] ...", highlight=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = time.monotonic() - self._start
        self._progress.timings.append((self.name, seconds))
        word = "done" if kind is None else "stopped"
        self._console.print(f"  {word} in {seconds:.1f} s", style="dim", highlight=False)

    def again(self) -> Step:
        """A fresh view for the next DAG run of the same step; it is part of this step's time."""
        other = Step(self._progress, self._console, self.name)
        other._start = self._start
        return other

    def lines(self, found: list[str]) -> None:
        """Prints what is new of a growing list of lines."""
        for line in found[self._lines :]:
            self._console.print(f"            {line}", markup=False, highlight=False)
        self._lines = max(self._lines, len(found))

    def tasks(self, instances: list[dict[str, Any]]) -> None:
        """Prints each task once per state worth telling."""
        for item in sorted(instances, key=lambda i: (i["start_date"] or "9", i["task_id"])):
            key, state = (item["task_id"], item["map_index"]), item["state"]
            if state in MARKS and self._seen.get(key) != state:
                self._seen[key] = state
                label = item["task_id"] + (f"[{item['map_index']}]" if item["map_index"] >= 0 else "")
                took = f" {item['duration']:.1f} s" if item.get("duration") and state == "success" else ""
                elapsed = time.monotonic() - self._start
                self._console.print(f"  {elapsed:6.1f} s  {MARKS[state]} {label}{took}", markup=False, highlight=False)
