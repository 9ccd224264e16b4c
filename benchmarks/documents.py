"""Where benchmarks write what they have measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import ROOT

DOCS = ROOT / "docs" / "benchmarks.md"


def write_between(path: Path, name: str, lines: Sequence[str]) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`. SystemExit when the file has no such place."""
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"{path} needs one line '{begin}' and, after it, one line '{end}'.")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    path.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{tail}", encoding="utf-8")
