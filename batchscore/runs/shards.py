"""Shards: which parts are scored and staged as one, how they are read, staged and read back.

A file of a few rows is a part of its own, and one tokenising call, one micro-batch and one staged file each would cost more than
its rows. So consecutive small files share them. Which ones follows from the plan alone, so that every start of a run, and
every machine that works on it, has the same shards; a large file's parts are shards of their own.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.formats.staged import Section, read_blocks, stage_shard
from batchscore.records import Shard
from batchscore.runs.planning import read_parts

if TYPE_CHECKING:
    from batchscore.config import ReadSettings
    from batchscore.formats.answers import Answers
    from batchscore.formats.staged import Block, StagedPart
    from batchscore.model.given import Reader
    from batchscore.records import Part, Predictions, Rows
    from batchscore.runs.folder import Staging
    from batchscore.runs.planning import Plan


def shards_of(plan: Plan, settings: ReadSettings) -> list[Shard]:
    """The shards of a plan, in order: every part is in one.

    Files of one part each go together up to ``part_rows`` rows and ``part_bytes`` bytes of rows: no shard is larger than a
    part may be.
    """
    parts_of_file = collections.Counter(part.file for part in plan.parts)
    shards: list[list[Part]] = []
    rows = size = 0
    was_small = False
    for part in plan.parts:
        is_small = parts_of_file[part.file] == 1
        rows, size = rows + part.rows, size + part.bytes
        if not (is_small and was_small and rows <= settings.part_rows and size <= settings.part_bytes):
            shards.append([])
            rows, size = part.rows, part.bytes
        shards[-1].append(part)
        was_small = is_small
    return [Shard.of(*parts) for parts in shards]


def read_shards(
    plan: Plan, wanted: Sequence[Shard], settings: ReadSettings
) -> Iterator[tuple[Shard, list[Rows]]]:
    """Read the rows of the wanted shards again, in order: those of each part.

    Raises:
        DataError: the rows are not those that were planned.
    """
    stream = read_parts(plan, [part for shard in wanted for part in shard.parts], settings)
    for shard in wanted:
        rows = [next(stream)[1] for _ in shard.parts]
        yield shard, rows
        del rows  # before the next shard is read


class Staged(NamedTuple):
    """A shard that is staged: what its journal entry says."""

    number: int
    parts: int
    sha256: str
    """Of its file's bytes."""
    work: dict[str, float]
    """What it cost (:attr:`batchscore.records.Predictions.work`)."""


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Stages shards, in whichever process they were scored: it can be pickled."""

    staging: Staging
    given: Sequence[Reader]
    """How the label values of each file of the plan are read."""
    answers: Answers

    def stage(self, shard: Shard, rows: Sequence[Rows], predictions: Sequence[Predictions]) -> Staged:
        """Stage the rows and predictions of each part; its name is durable once the folder is synced.

        Raises:
            StorageError: the disk is full, a permission is missing, or the like.
        """
        sections = [
            Section(each, answer, self.given[part.file].indices(each.labels, len(each.texts)))
            for part, each, answer in zip(shard.parts, rows, predictions, strict=True)
        ]
        digest = stage_shard(self.staging.shard(shard.number), sections, self.answers)
        work = collections.Counter[str]()
        for each in predictions:
            work.update(each.work)
        return Staged(shard.number, len(shard.parts), digest, dict(work))


class StagedParts:
    """The parts of a run that is staged, read back by their numbers."""

    def __init__(self, staging: Staging, shards: Sequence[Shard], answers: Answers) -> None:
        self._staging, self._answers = staging, answers
        self._places = [(shard.number, place) for shard in shards for place in range(len(shard.parts))]
        self._mapped: tuple[int, list[tuple[Block, int]]] = (-1, [])
        """The shard that was read last, as its parts are mostly read one after the other: where each part is."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what is mapped."""
        return {**self.__dict__, "_staging": self._staging.alone, "_mapped": (-1, [])}

    def open(self, number: int) -> StagedPart:
        """A part, mapped into memory; pages are read on demand."""
        block, place = self._place(number)
        return block.part(place)

    def block(self, number: int) -> Block:
        """The part and those whose rows lie with its own; it is the first of them if the parts are gone through in order."""
        return self._place(number)[0]

    def _place(self, number: int) -> tuple[Block, int]:
        shard, place = self._places[number]
        if self._mapped[0] != shard:
            blocks = read_blocks(self._staging.shard(shard), self._answers)
            self._mapped = (shard, [(block, at) for block in blocks for at in range(len(block))])
        return self._mapped[1][place]
