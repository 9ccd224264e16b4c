"""A DocumentStore in memory, for days by the thousand, whose answers can fail as a throttled or distant database's do."""

from __future__ import annotations

import bisect
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trading_core.errors import LedgerUnreachableError
from trading_core.execution.codec import Document
from trading_core.execution.store import Key, NewDocument, Stored, checked, checked_all

BEFORE, AFTER = "before", "after"  # the write failed; it was made and its answer lost
# What is to happen to one call (its name): BEFORE, AFTER, or "" for nothing.
Hook = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Write:
    """One committed creation: the keys that were made, and those that had to be absent."""

    made: tuple[Key, ...]
    absent: tuple[Key, ...]


@dataclass(slots=True)
class _Partition:
    keys: list[str] = field(default_factory=list)
    texts: dict[str, tuple[str, int]] = field(default_factory=dict)


def no_fault(_: str) -> str:
    return ""


class MemoryStore:
    """See `DocumentStore`. `hook` is asked before every call; `writes` keeps every committed creation, oldest first."""

    def __init__(self, hook: Hook = no_fault, url: str = "memory://ledger") -> None:
        self.url = url
        self.hook = hook
        self.writes: list[Write] = []
        self._lock = threading.Lock()
        self._partitions: dict[str, _Partition] = {}

    def get(self, pk: str, sk: str) -> Document | None:
        found = self.find(pk, sk)
        return found.doc if found else None

    def find(self, pk: str, sk: str) -> Stored | None:
        self._ask("find")
        with self._lock:
            held = self._partition(pk).texts.get(sk)
        return Stored(sk, json.loads(held[0]), held[1]) if held else None

    def put_new(self, pk: str, sk: str, doc: Document) -> bool:
        return self._create("put_new", [NewDocument(pk, sk, doc)], ())

    def replace(self, pk: str, sk: str, doc: Document, expected_version: int) -> bool:
        text = checked(NewDocument(pk, sk, doc))
        lost = self._ask("replace")
        with self._lock:
            texts = self._partition(pk).texts
            held = texts.get(sk)
            swapped = held is not None and held[1] == expected_version
            if swapped:
                texts[sk] = (text, expected_version + 1)
        self._lose(lost, "replace")
        return swapped

    def query(self, pk: str, sk_prefix: str = "", limit: int | None = None, newest_first: bool = False) -> list[Stored]:
        self._ask("query")
        with self._lock:
            part = self._partition(pk)
            first = bisect.bisect_left(part.keys, sk_prefix)
            last = bisect.bisect_left(part.keys, sk_prefix + "\U0010ffff")
            keys = part.keys[first:last]
            chosen = (keys[::-1] if newest_first else keys)[:limit]
            found = [(sk, *part.texts[sk]) for sk in chosen]
        return [Stored(sk, json.loads(text), version) for sk, text, version in found]

    def transact_new(self, items: Sequence[NewDocument], absent: Sequence[Key] = ()) -> bool:
        return self._create("transact_new", items, absent)

    def close(self) -> None:
        """Nothing is held."""

    def documents(self) -> dict[Key, str]:
        """Everything, as JSON texts by key: what two runs are compared by. Asks no hook."""
        with self._lock:
            return {Key(pk, sk): part.texts[sk][0] for pk, part in self._partitions.items() for sk in part.keys}

    def _create(self, name: str, items: Sequence[NewDocument], absent: Sequence[Key]) -> bool:
        texts = checked_all(items, absent)
        lost = self._ask(name)
        with self._lock:
            wanted = [Key(item.pk, item.sk) for item in items]
            free = all(sk not in self._partition(pk).texts for pk, sk in (*wanted, *absent))
            if free:
                for (pk, sk), text in zip(wanted, texts, strict=True):
                    part = self._partition(pk)
                    bisect.insort(part.keys, sk)
                    part.texts[sk] = (text, 1)
                self.writes.append(Write(tuple(wanted), tuple(Key(*key) for key in absent)))
        self._lose(lost, name)
        return free

    def _partition(self, pk: str) -> _Partition:
        return self._partitions.setdefault(pk, _Partition())

    def _ask(self, name: str) -> str:
        what = self.hook(name)
        if what == BEFORE:
            raise LedgerUnreachableError(self.url, f"{name} was throttled")
        return what

    def _lose(self, what: str, name: str) -> None:
        if what == AFTER:
            raise LedgerUnreachableError(self.url, f"the answer to {name} was lost")
