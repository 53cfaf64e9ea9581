"""What a run folder is: the names of what lies in it, whether its run has finished, and what the run says of itself.

::

    predictions/<input name>   every row of an input, with the columns that were added
    mismatches.parquet, .csv   rows whose prediction differs from their label, if rows have labels
    rejects.jsonl              rows that could not be read, if there are any
    metrics.json, run.json     results; everything else about the run
    report.html                the page
    _SUCCESS                   the manifest, written last
    .staging/                  what a run needs to go on, until it has finished
    refused.json               why a night was refused before anything was scored
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore.errors import DataError, OutputError, printable
from batchscore.system.storage import (
    HOLDER,
    MANIFEST,
    STAGING,
    damaged_files,
    read_checked,
    read_manifest,
    write_checked,
)

__all__ = [
    "ALWAYS_WRITTEN",
    "BEFORE_SCORING",
    "DAMAGE",
    "FACTS",
    "MANIFEST",
    "METRICS",
    "MISMATCHES",
    "MISMATCHES_CSV",
    "NOTE",
    "PAGE",
    "PREDICTIONS",
    "REJECTS",
    "RUN_NAMES",
    "STAGING",
    "STAGING_NAMES",
    "TIMED",
    "RunFolder",
    "RunState",
    "Staging",
    "check_run",
    "foreign_names",
    "is_finished",
    "prediction_names",
    "read_facts",
    "read_run",
    "staged_manifests",
    "staged_parts",
    "state_of",
]

PREDICTIONS = "predictions"
MISMATCHES = "mismatches.parquet"
MISMATCHES_CSV = "mismatches.csv"
REJECTS = "rejects.jsonl"
METRICS = "metrics.json"
FACTS = "run.json"
PAGE = "report.html"
NOTE = "refused.json"
ALWAYS_WRITTEN = frozenset({FACTS, METRICS, PAGE})
"""Files that every finished run has."""
TIMED = frozenset({FACTS, PAGE})
"""Files that differ each time a run is made, since they hold times."""
BEFORE_SCORING = frozenset({REJECTS, NOTE})
"""What a run that was refused may have left in its folder."""
RUN_NAMES = frozenset({MANIFEST, STAGING, NOTE, FACTS, METRICS, REJECTS})
"""Names by which a folder is taken for that of a run."""
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a run raises whose files are not as they were written."""
_REPLACED = "replaced.json"
_PART_SUFFIX = ".arrow"
STAGING_NAMES = re.compile(
    rf"[0-9a-f]{{32}}|{re.escape(HOLDER)}|{re.escape(_REPLACED)}|\.[0-9a-f]{{16}}\.tmp"
)
"""Names directly in ``.staging/``: a folder per fingerprint, the lock's holder, files to replace, unfinished writes."""


# --------------------------------------------------------------------------------------------------- its state


class RunState(enum.Enum):
    """What a folder holds, told by names alone."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    REFUSED = "refused"
    """Nothing was scored, and a note says why."""
    NO_RUN = "no run"


def state_of(folder: Path) -> RunState:
    """Look at the names in a folder; it need not be there."""
    if is_finished(folder):
        return RunState.FINISHED
    if (folder / NOTE).exists():
        return RunState.REFUSED
    has_name = any((folder / name).exists() for name in RUN_NAMES)
    return RunState.UNFINISHED if has_name else RunState.NO_RUN


def is_finished(folder: Path) -> bool:
    """Whether a run stands finished in the folder."""
    return (folder / MANIFEST).exists()


def foreign_names(folder: Path) -> set[str]:
    """Names in a folder that no run puts there before it finishes."""
    return {path.name for path in folder.iterdir()} - {STAGING} - BEFORE_SCORING


# --------------------------------------------------------------------------------------------------- its facts


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """What a run says of itself. Each property raises one of ``DAMAGE`` where the files are not as we write them."""

    path: Path
    facts: Mapping[str, Any]
    """``run.json``."""
    metrics: Mapping[str, Any]
    """``metrics.json``."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all that its results depend on."""
        return str(self.facts["fingerprint"])

    @property
    def finished(self) -> str:
        """When it finished: ISO time with its offset."""
        return str(self.facts["finished"])

    @property
    def files(self) -> Sequence[Mapping[str, Any]]:
        """Its inputs: ``name``, ``sha256``, ``rows``, ``rejects`` and more of each."""
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
        """Rows by what became of them: ``read``, ``rejects``, ``scored`` and others."""
        counts: Mapping[str, int] = self.metrics["counts"]
        return counts


def read_run(folder: Path) -> RunFolder:
    """Read what a run, finished or not, says of itself.

    Raises:
        OSError, ValueError: a file is not there, cannot be read, or is no JSON.
    """
    return RunFolder(folder, read_facts(folder), json.loads((folder / METRICS).read_bytes()))


def read_facts(folder: Path) -> Mapping[str, Any]:
    """Read ``run.json`` alone.

    Raises:
        OSError, ValueError: as :func:`read_run`.
    """
    facts: Mapping[str, Any] = json.loads((folder / FACTS).read_bytes())
    return facts


def check_run(folder: Path) -> dict[str, str]:
    """Read every file of a finished run; returns path → SHA-256 as its manifest has them.

    Raises:
        DataError: a file is missing, changed or foreign, or the run has not finished; the message names it.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Staging:
    """The staging folder of one run: its plan, its parts, and the final files while they are built."""

    folder: Path

    @property
    def parts(self) -> Path:
        """Where parts are staged."""
        return self.folder / "parts"

    @property
    def holds_parts(self) -> bool:
        """Whether anything was scored that would be lost with this folder."""
        return any(self.parts.glob(f"*{_PART_SUFFIX}"))

    @property
    def final(self) -> Path:
        """Where the final files are built."""
        return self.folder / "final"

    @property
    def rejects(self) -> Path:
        """The rejects that planning found."""
        return self.folder / REJECTS

    @property
    def rejects_copy(self) -> Path:
        """A copy of the rejects, to be renamed into the run folder if the run is refused."""
        return self.folder / "refused.jsonl"

    @property
    def plan(self) -> Path:
        """The plan."""
        return self.folder / "plan.json"

    @property
    def journal(self) -> Path:
        """The journal of the staged parts."""
        return self.folder / "journal.jsonl"

    def replaced(self) -> set[str]:
        """Files in the run folder that are an earlier run's, or an earlier start's of this one.

        The list lies beside the staging folders of all runs, so that it outlives each of them.

        Raises:
            OutputError: it is damaged, so that nobody can tell what is to go.
        """
        path = self.folder.with_name(_REPLACED)
        names = read_checked(path)
        if names is None and path.exists():
            raise OutputError(
                f"{printable(path)} is damaged. Remove the run folder, or name another --output."
            )
        return set(names or ())

    def note_replaced(self, names: Iterable[str]) -> None:
        """Remember the files that are to go unless this run writes them anew."""
        write_checked(self.folder.with_name(_REPLACED), sorted(names))

    def part(self, number: int) -> Path:
        """The file of a staged part."""
        return self.parts / f"{number:08d}{_PART_SUFFIX}"


def staged_parts(folder: Path) -> Iterator[Path]:
    """The parts that are staged in a run folder, whatever run they are of."""
    return (folder / STAGING).glob(f"*/parts/*{_PART_SUFFIX}")


def staged_manifests(folder: Path) -> Iterator[Path]:
    """The manifests of final files that are staged in a run folder, of any run."""
    return (folder / STAGING).glob(f"*/final/{MANIFEST}")
