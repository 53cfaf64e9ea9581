"""The work of a run: what it cost, and what is done of parts that are not staged yet.

A part is 2,048 rows, which may take minutes. So each micro-batch moves the progress, and its logits are noted, so that a
stopped run loses about a second of work and not its parts. What the micro-batches of a part are depends on its rows and the
token budget alone, and logits are noted to the last bit, so a run that goes on writes the same bytes.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.model.scoring import Scored, Watcher
from batchscore.runs import shapes
from batchscore.system.journal import Journal
from batchscore.system.own_paths import AnyPath, OwnPath, own_folder
from batchscore.system.storage import make_folder, remove_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Shard

_WRITE_SECONDS = 1.0
"""How often what is done is written: what a kill may lose."""


class MicroBatches:
    """The micro-batches that are done of a run's unfinished parts, in one file a part.

    ``note`` is called with rows as they are done, and whether this start did them.
    """

    def __init__(self, folder: AnyPath, note: Callable[[int, bool], None]) -> None:
        self._folder, self._note = own_folder(folder), note
        self._lock = threading.Lock()
        self._parts: dict[int, _PartInWork] = {}
        self._last = time.monotonic()
        make_folder(self._folder)

    def watch(self, shard: Shard, without: str = "") -> Watcher:
        """What sees the micro-batches of a part; the engine asks for it when it begins the part.

        ``without`` tells which of its rows are not scored: micro-batches of other ones are noted apart.
        """
        name = f"{shard.number:08d}{without and '-'}{without}.journal"
        self._parts[shard.number] = watcher = _PartInWork(
            shard.rows, self._folder, name, self._lock, self._seen
        )
        return watcher

    def staged(self, shard: Shard) -> None:
        """The whole part is staged, so its micro-batches need not be kept."""
        watcher = self._parts.pop(shard.number, None)
        with self._lock:
            self._note(shard.rows - (watcher.noted if watcher else 0), True)
        if watcher:
            watcher.forget()

    def earlier_seconds(self, shard: Shard) -> float:
        """What earlier starts spent on micro-batches of a part."""
        watcher = self._parts.get(shard.number)
        return watcher.earlier_seconds if watcher else 0.0

    def close(self) -> None:
        """Write what is not written yet."""
        for watcher in list(self._parts.values()):
            watcher.close()

    def _seen(self, rows: int, is_new: bool) -> float:
        """Move the progress; returns the seconds since the last time."""
        self._note(rows, is_new)
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        return seconds


class _PartInWork(Watcher):
    def __init__(
        self,
        rows: int,
        folder: OwnPath,
        name: str,
        lock: threading.Lock,
        seen: Callable[[int, bool], float],
    ) -> None:
        self._rows, self._folder, self._name, self._lock, self._seen = rows, folder, name, lock, seen
        self._journal = Journal(folder / name, shapes.MICRO_BATCH)
        self._known = {(entry["budget"], entry["number"]): entry for entry in self._journal.entries}
        self.earlier_seconds = sum(entry["seconds"] for entry in self._known.values())
        self._waiting: list[dict[str, Any]] = []
        self._written = time.monotonic()
        self._budget, self._share = 0, 0.0
        self.noted = 0
        """Rows that the progress has been told of."""

    def known(self, budget: int) -> Mapping[int, Scored]:
        found: dict[int, Scored] = {}
        for (planned, number), entry in self._known.items():
            if planned == budget:
                with contextlib.suppress(ValueError):  # made by hand
                    found[number] = _scored(entry)
        return found

    def done(self, budget: int, number: int, scored: Scored, share: float) -> None:
        with self._lock:
            if budget != self._budget:  # out of memory: from the start, with smaller ones
                self._budget, self._share = budget, 0.0
            self._share += share
            more = max(int(self._rows * self._share) - self.noted, 0)
            self.noted += more
            is_new = (budget, number) not in self._known
            seconds = self._seen(more, is_new)
            if is_new and not scored.failures:  # what failed may do better
                self._waiting.append(
                    {"budget": budget, "number": number, "seconds": seconds, **_facts(scored)}
                )
                if time.monotonic() - self._written >= _WRITE_SECONDS:
                    self._write()

    def _write(self) -> None:
        self._journal.extend(self._waiting, is_durable=False)
        self._waiting.clear()
        self._written = time.monotonic()

    def close(self) -> None:
        """Write the rest."""
        with self._lock:
            self._write()
            self._journal.close()

    def forget(self) -> None:
        """Remove the file."""
        self._journal.close()
        remove_file(self._folder, self._name)


def _facts(scored: Scored) -> dict[str, Any]:
    return {
        "sequence": _text(scored.sequence.astype("<i8")),
        "logits": _text(scored.logits.astype("<f4")),
        "work": dict(scored.work),
    }


def _scored(entry: Mapping[str, Any]) -> Scored:
    sequence = np.frombuffer(base64.b64decode(entry["sequence"]), "<i8")
    logits = np.frombuffer(base64.b64decode(entry["logits"]), "<f4").reshape(len(sequence), -1)
    return Scored(sequence, logits, {}, collections.Counter(entry["work"]))


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


class WorkDone:
    """The cost of scoring, over all starts of a run; that of earlier starts comes from the journal."""

    def __init__(self) -> None:
        self._total: collections.Counter[str] = collections.Counter()
        self.earlier = 0.0
        """Seconds that earlier starts spent on intact parts."""
        self.workers: int | None = None
        """Workers of this start; None if everything was scored before."""
        self._last = time.monotonic()

    @property
    def total(self) -> Mapping[str, float]:
        """Sums over all parts."""
        return self._total

    def take_over(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Count the intact parts of earlier starts."""
        for entry in entries:
            work = entry.get("work", {})
            self._total.update(work)
            self.earlier += work.get("seconds", 0.0)

    def start(self, workers: int) -> None:
        """The first part begins."""
        self.workers = workers
        self._last = time.monotonic()

    def add(self, work: Mapping[str, float], earlier: float) -> dict[str, float]:
        """Count a part; returns ``work`` with the ``seconds`` since the previous part and those of ``earlier`` starts."""
        now = time.monotonic()
        work = {**work, "seconds": now - self._last + earlier}
        self.earlier += earlier
        self._last = now
        self._total.update(work)
        return work

    def summary(self, scored: int, seconds: float) -> dict[str, Any]:
        """Sums and rates: rows over the whole run's ``seconds``, tokens over scoring alone; None where undefined."""
        total = self._total
        return {
            "scoring_seconds": round(total["seconds"], 3),
            "forward_seconds": round(total["forward_seconds"], 3),
            "device_waiting_seconds": round(total["waiting_seconds"], 3),
            "workers": self.workers,
            **{key: round(total[key]) for key in ("tokens", "padded_tokens", "micro_batches", "halvings")},
            "rows_per_second": scored / seconds if seconds else None,
            "tokens_per_second": total["tokens"] / total["seconds"] if total["seconds"] else None,
            "padding_share": 1 - total["tokens"] / total["padded_tokens"] if total["padded_tokens"] else None,
        }
