"""What a run folder is: the names of its files, whether its run has finished, and the run's own facts.

::

    predictions/<input name>   every row of an input, with the added columns
    mismatches.parquet, .csv   rows whose prediction differs from their label, if rows have labels
    rejects.jsonl              rows that could not be read, if there are any
    metrics.json, run.json     results; everything else about the run
    report.html, report.txt    the page, and its gist as plain text for a mail
    _SUCCESS                   the manifest, written last
    .staging/                  what a run needs to resume, until it has finished
    refused.json               why a night was refused before anything was scored
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batchscore.errors import DataError, OutputError, printable
from batchscore.runs import shapes
from batchscore.system.documents import checked, read_json
from batchscore.system.journal import Journal, read_checked, write_checked
from batchscore.system.locks import HOLDER
from batchscore.system.own_paths import AnyPath, OwnPath, own_folder, refuse_strange
from batchscore.system.storage import MANIFEST, STAGING, damaged_files, read_manifest

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings

__all__ = [
    "ACCEPTING",
    "ALWAYS_WRITTEN",
    "BEFORE_SCORING",
    "CHOSEN",
    "DAMAGE",
    "EVALUATION",
    "FACTS",
    "LABELS",
    "MANIFEST",
    "METRICS",
    "MISMATCHES",
    "MISMATCHES_CSV",
    "NOTE",
    "PAGE",
    "PREDICTIONS",
    "PURPOSES",
    "REJECTS",
    "REPLACED",
    "RUN_NAMES",
    "STAGING",
    "STAGING_NAMES",
    "TEXT",
    "TIMED",
    "UNNAMED",
    "Keeper",
    "RunFolder",
    "RunState",
    "Staging",
    "check_run",
    "foreign_names",
    "is_evaluation",
    "is_finished",
    "output_of",
    "prediction_names",
    "read_facts",
    "read_run",
    "refuse_links",
    "staged_manifests",
    "staged_shards",
    "state_of",
]

PREDICTIONS = "predictions"
MISMATCHES = "mismatches.parquet"
MISMATCHES_CSV = "mismatches.csv"
REJECTS = "rejects.jsonl"
METRICS = "metrics.json"
FACTS = "run.json"
PAGE = "report.html"
TEXT = "report.txt"
NOTE = "refused.json"
LABELS = "labels.arrow"
"""In an evaluation alone: the labels that came later."""
EVALUATION = ".evaluation"
"""Behind the name of a run's folder: that of its evaluation."""
ALWAYS_WRITTEN = frozenset({FACTS, METRICS, PAGE})
"""Files that every finished run has, of earlier versions too."""
PURPOSES = {
    PREDICTIONS: "every row, with its prediction",
    MISMATCHES_CSV: "rows to check, for a spreadsheet",
    MISMATCHES: "rows to check, with all their columns",
    REJECTS: "rows that could not be read, and why",
    METRICS: "every figure of this page, and more",
    FACTS: "inputs, model, options and versions",
    TEXT: "this page in a few lines",
}
"""What a finished run's files hold, in words, in the order in which its page lists them."""
TIMED = frozenset({FACTS, PAGE, TEXT})
"""Files that differ each time a run is made, since times are in them."""
BEFORE_SCORING = frozenset({REJECTS, NOTE})
"""Files that a refused run may leave in its folder."""
RUN_NAMES = frozenset({MANIFEST, STAGING, NOTE, FACTS, METRICS, REJECTS})
"""Names by which a folder is recognised as a run folder."""
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Exceptions that reading a damaged run may raise."""
REPLACED = "replaced.json"
"""In ``.staging/``: files of earlier runs, to be removed unless they are written again."""
CHOSEN = "baseline.json"
"""In ``.staging/``: the run that ``--baseline latest`` found at the first start."""
ACCEPTING = "accepting.json"
"""In ``.staging/``: what ``--accept`` chose at the first start on the rows of another run."""
UNNAMED = "0" * 32
"""In ``.staging/``: the folder of a run that is being planned, before its inputs are hashed; it has no other name yet."""
_PART_SUFFIX = ".arrow"
_STAGING_FILES = "|".join(map(re.escape, (HOLDER, REPLACED, CHOSEN, ACCEPTING)))
STAGING_NAMES = re.compile(rf"[0-9a-f]{{32}}|{_STAGING_FILES}|\.[0-9a-f]{{16}}\.tmp")
"""Names directly in ``.staging/``: a folder per fingerprint, the lock's holder, files to replace, what was chosen, unfinished writes."""


# --------------------------------------------------------------------------------------------------- its state


class RunState(enum.Enum):
    """The state of a run folder, from file names alone."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    REFUSED = "refused"
    """Nothing was scored, and a note says why."""
    NO_RUN = "no run"


def output_of(settings: ScoreSettings) -> OwnPath:
    """The run folder: the user named it, or the folder that it lies in."""
    output, within = settings.output, settings.within
    return OwnPath(output) if within is None else OwnPath(within) / str(output.relative_to(within))


def state_of(folder: AnyPath) -> RunState:
    """The state of a folder, which need not exist."""
    if is_finished(folder):
        return RunState.FINISHED
    place = own_folder(folder)
    if (place / NOTE).exists():
        return RunState.REFUSED
    has_name = any((place / name).exists() for name in RUN_NAMES)
    return RunState.UNFINISHED if has_name else RunState.NO_RUN


def is_finished(folder: AnyPath) -> bool:
    """Whether the folder holds a finished run."""
    return (own_folder(folder) / MANIFEST).exists()


def foreign_names(folder: AnyPath) -> set[str]:
    """Names in a folder that no run puts there before it finishes."""
    return set(own_folder(folder).names()) - {STAGING} - BEFORE_SCORING


def refuse_links(folder: OwnPath) -> None:
    """Refuse a folder where a link, a pipe or the like has the name of a run's file, or lies among them.

    Raises:
        NotOursError: names it.
    """
    refuse_strange(
        folder, names=RUN_NAMES | PURPOSES.keys() | {PAGE}, trees=frozenset({PREDICTIONS, STAGING})
    )


# --------------------------------------------------------------------------------------------------- its facts


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """The facts and metrics of a run. Each property raises one of ``DAMAGE`` if the files are damaged."""

    path: Path
    facts: Mapping[str, Any]
    """``run.json``."""
    metrics: Mapping[str, Any]
    """``metrics.json``."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over everything that the results depend on."""
        return str(self.facts["fingerprint"])

    @property
    def finished(self) -> str:
        """When it finished: ISO time with its offset."""
        return str(self.facts["finished"])

    @property
    def files(self) -> Sequence[Mapping[str, Any]]:
        """The inputs, each with ``name``, ``sha256``, ``rows``, ``rejects`` and more."""
        files: Sequence[Mapping[str, Any]] = self.facts["files"]
        return files

    @property
    def model(self) -> Mapping[str, Any]:
        """The bundle: ``path``, ``fingerprint``, ``labels``."""
        model: Mapping[str, Any] = self.facts["model"]
        return model

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that change results, as JSON values."""
        options: Mapping[str, Any] = self.facts["options"]
        return options

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows by outcome: ``read``, ``rejects``, ``scored`` and others."""
        counts: Mapping[str, int] = self.metrics["counts"]
        return counts


def read_run(folder: AnyPath) -> RunFolder:
    """Read the facts and metrics of a run, finished or not.

    Raises:
        OSError, ValueError: a file is missing, cannot be read, is not JSON, or not of a run.
    """
    place = own_folder(folder)
    return RunFolder(place.path, read_facts(place), checked(read_json(place / METRICS), shapes.METRICS))


def is_evaluation(facts: Mapping[str, Any]) -> bool:
    """Whether a ``run.json`` is that of no run, but of the evaluation of one with labels that came later."""
    return "evaluates" in facts


def read_facts(folder: AnyPath) -> Mapping[str, Any]:
    """Read ``run.json`` alone.

    Raises:
        OSError, ValueError: as :func:`read_run`.
    """
    facts: Mapping[str, Any] = checked(read_json(own_folder(folder) / FACTS), shapes.FACTS)
    return facts


def check_run(folder: AnyPath) -> dict[str, str]:
    """Check every file of a finished run; returns path → SHA-256 from its manifest.

    Raises:
        DataError: a file is missing, changed or not in the manifest, or the run has not finished; the message names it.
    """
    hashes = read_manifest(folder)
    if problems := damaged_files(folder, hashes):
        raise DataError(
            f"{printable(folder)} is not as it was written: {'; '.join(problems[:20])}. Score again with --force."
        )
    return hashes


def prediction_names(names: Sequence[str], output_format: str) -> list[str]:
    """The names of the prediction files, below ``predictions/``, of inputs with these names."""
    from batchscore.formats.inputs import (
        output_names,  # these load pyarrow, which a report over runs does without
    )
    from batchscore.formats.registry import suffix_of

    return list(names) if output_format == "same" else output_names(names, suffix_of(output_format))


# ------------------------------------------------------------------------------------------- before it has finished


class Keeper(Protocol):
    """A run folder that is not on this machine, and of which this one has a copy."""

    def open_journal(self, staging: Staging) -> Journal:
        """A journal whose entries, and staged parts, are kept there too."""
        ...

    def refuse_changed(self, *, hash_all: bool = False) -> None:
        """What :func:`~batchscore.runs.as_written.refuse_changed` does with a folder."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Staging:
    """The staging folder of one run: its plan, its parts, and the final files while they are built."""

    folder: OwnPath
    keeper: Keeper | None = None
    """Who keeps what is staged elsewhere too."""

    @property
    def alone(self) -> Staging:
        """The folder without who keeps it, for other processes."""
        return Staging(self.folder)

    def open_journal(self) -> Journal:
        """The journal of the staged parts."""
        return (
            Journal(self.journal, shapes.JOURNAL) if self.keeper is None else self.keeper.open_journal(self)
        )

    @property
    def parts(self) -> OwnPath:
        """Where parts are staged."""
        return self.folder / "parts"

    @property
    def micro_batches(self) -> OwnPath:
        """Where the micro-batches are noted that are done of parts that are not."""
        return self.folder / "micro-batches"

    @property
    def reused(self) -> OwnPath:
        """Where the answers of an earlier run are looked up."""
        return self.folder / "reused"

    @property
    def holds_work(self) -> bool:
        """Whether anything was scored, and would be lost with this folder."""
        has_parts = any(name.endswith(_PART_SUFFIX) for name in _names_in(self.parts))
        return has_parts or bool(_names_in(self.micro_batches))

    @property
    def final(self) -> OwnPath:
        """Where the final files are built."""
        return self.folder / "final"

    @property
    def rejects(self) -> OwnPath:
        """The rejects that planning found."""
        return self.folder / REJECTS

    @property
    def rejects_copy(self) -> OwnPath:
        """A copy of the rejects, to be renamed into the run folder if the run is refused."""
        return self.folder / "refused.jsonl"

    @property
    def plan(self) -> OwnPath:
        """The plan."""
        return self.folder / "plan.json"

    @property
    def journal(self) -> OwnPath:
        """The journal of the staged shards."""
        return self.folder / "journal.jsonl"

    def replaced(self) -> set[str]:
        """Names of files in the run folder from an earlier run, or an earlier start of this one.

        The list is kept beside the staging folders of all runs, so that it outlives each of them.

        Raises:
            OutputError: the list is damaged, so it is unknown which files to remove.
        """
        path = self.folder.with_name(REPLACED)
        names = read_checked(path)
        if names is None and path.exists():
            raise OutputError(
                f"{printable(path)} is damaged. Remove the run folder, or name another --output."
            )
        return set(names or ())

    def note_replaced(self, names: Iterable[str]) -> None:
        """Record the files to remove unless this run writes them again."""
        write_checked(self.folder.with_name(REPLACED), sorted(names))

    def shard(self, number: int) -> OwnPath:
        """The file of a staged shard, by the number of its first part."""
        return self.parts / f"{number:08d}{_PART_SUFFIX}"


def staged_shards(folder: AnyPath) -> Iterator[OwnPath]:
    """The files of the shards that are staged in a run folder, of any run."""
    for run in _staged_runs(folder):
        parts = run / "parts"
        yield from (parts / name for name in _names_in(parts) if name.endswith(_PART_SUFFIX))


def staged_manifests(folder: AnyPath) -> Iterator[OwnPath]:
    """The manifests of final files that are staged in a run folder, of any run."""
    found = (run / "final" / MANIFEST for run in _staged_runs(folder))
    return (path for path in found if path.exists())


def _staged_runs(folder: AnyPath) -> list[OwnPath]:
    staging = own_folder(folder) / STAGING
    return [staging / name for name in _names_in(staging)]


def _names_in(folder: OwnPath) -> list[str]:
    """The names in a folder; none if it is missing, or no folder."""
    return folder.names() if folder.is_folder() else []
