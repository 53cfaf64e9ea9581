"""What scoring processes do for a run, as the run sees it: what each shard is given as, and what becomes of an answer.

A process that sees the run's files reads and stages by itself. To others, and where answers are taken from an earlier
night, texts go from here, and predictions come back and are staged here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import printable
from batchscore.runs.part_reading import PartReader
from batchscore.runs.shard_scoring import PROBES, Recipe, Texts, ask, is_answered
from batchscore.runs.shards import ShardWriter, Staged
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder, remove_tree

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.records import Rows, Shard
    from batchscore.runs.engines.pool import Ready
    from batchscore.runs.planning import Plan
    from batchscore.runs.reuse import Reuse


class Spreading:
    """The work of scoring processes (:class:`~batchscore.runs.engines.dispatching.Work`)."""

    def __init__(
        self,
        plan: Plan,
        todo: Sequence[Shard],
        read: ReadSettings,
        writer: ShardWriter,
        bound: Callable[[Ready], tuple[Mapping[str, Any], Reuse | None]],
        staged: Callable[[Shard, Staged, Reuse | None], None],
    ) -> None:
        """``bound`` takes note of what the first process found, ``staged`` of each shard."""
        self._plan, self._todo, self._writer = plan, todo, writer
        self._bound, self._staged = bound, staged
        self._reader = PartReader(plan.files, read)
        self._reuse: Reuse | None = None
        self._held: dict[int, list[Rows]] = {}
        """The rows of shards whose texts were given away."""
        self._probes = writer.staging.folder / PROBES
        remove_tree(self._probes)
        make_folder(self._probes)
        ask(self._probes)

    def shards(self) -> Iterator[Shard]:
        """In the order of the plan."""
        return iter(self._todo)

    def bind(self, found: Ready) -> Mapping[str, Any]:
        """See :class:`~batchscore.runs.engines.dispatching.Work`."""
        compute, self._reuse = self._bound(found)
        return compute

    def shares(self, found: Ready) -> bool:
        """See :class:`~batchscore.runs.engines.dispatching.Work`."""
        return bool(found.reply) and self._reuse is None and is_answered(self._probes, found.reply)

    def payload(self, shard: Shard, *, shares: bool) -> Shard | Texts:
        """See :class:`~batchscore.runs.engines.dispatching.Work`."""
        if shares:
            return shard
        if shard.number not in self._held:
            self._held[shard.number] = self._read(shard)
        return Texts([rows.given_texts for rows in self._held[shard.number]])

    def _read(self, shard: Shard) -> list[Rows]:
        rows = [self._reader.read(part) for part in shard.parts]
        if self._reuse is None:
            return rows
        ((_, unknown),) = self._reuse.unknown([(shard, rows)])
        return list(unknown)

    def accept(self, shard: Shard, answer: Any) -> bool:
        """See :class:`~batchscore.runs.engines.dispatching.Work`."""
        rows = self._held.pop(shard.number, None)
        if not isinstance(answer, Staged):
            predictions = answer if self._reuse is None else self._reuse.completed(shard, answer)
            answer = self._writer.stage(shard, rows or [], predictions)
        elif not self._writer.staging.shard(shard.number).exists():
            return False
        self._staged(shard, answer, self._reuse)
        return True

    def finish(self) -> None:
        """Every shard is staged: forget what was only for the way there."""
        if self._reuse is not None:
            self._reuse.finish()
        remove_tree(self._probes)

    def rows_of(self, shard: Shard) -> str:
        """See :class:`~batchscore.runs.engines.dispatching.Work`."""
        first, last = shard.parts[0], shard.parts[-1]
        name = printable(self._plan.files[first.file].shown)
        if len(shard.parts) > 1:
            return f"{name} to {printable(self._plan.files[last.file].shown)}"
        return f"{name}, rows {first.start.row} to {first.start.row + first.rows - 1}"


def away(recipe: Recipe) -> Recipe:
    """The recipe for processes with another working directory: its paths are absolute."""
    folder = recipe.writer.staging.folder
    staging = dataclasses.replace(recipe.writer.staging, folder=OwnPath(_absolute(folder.root), folder.parts))
    return dataclasses.replace(
        recipe,
        bundle=dataclasses.replace(recipe.bundle, path=_absolute(recipe.bundle.path)),
        files=tuple(dataclasses.replace(file, path=str(_absolute(Path(file.path)))) for file in recipe.files),
        writer=dataclasses.replace(recipe.writer, staging=staging),
    )


def _absolute(path: Path) -> Path:
    """The same place by its whole path; links stay, which may lead elsewhere on another machine."""
    return Path(os.path.abspath(path))  # noqa: PTH100
