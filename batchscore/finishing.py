"""From staged parts to the final files of a run: built in the staging folder, hashed, renamed; ``_SUCCESS`` comes last.

Finishing may be killed and started again at any point: it reads only the plan and the parts, and every file it builds
has the same bytes each time (times in ``run.json`` and ``report.html`` apart).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from batchscore import mismatches
from batchscore.evaluation import Evaluation, LabelIssues
from batchscore.inputs import output_names
from batchscore.parts import StagedPart, read_part
from batchscore.records import Part
from batchscore.reports import render_run
from batchscore.storage import (
    MANIFEST,
    atomic_write,
    files_below,
    make_folder,
    publish,
    remove_tree,
    sha256_of,
    sync_folder,
    to_json,
    write_bytes,
    write_manifest,
)
from batchscore.writers import SUFFIXES, Output, write_predictions

if TYPE_CHECKING:
    from batchscore.bundle import Bundle
    from batchscore.config import ScoreSettings
    from batchscore.planning import Plan

REJECTS = "rejects.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Staging:
    """The staging folder of one run: its plan, its parts, and the final files while they are built."""

    folder: Path

    @property
    def parts(self) -> Path:
        """Where parts are staged."""
        return self.folder / "parts"

    @property
    def final(self) -> Path:
        """Where the final files are built."""
        return self.folder / "final"

    @property
    def rejects(self) -> Path:
        """The rejects that planning found."""
        return self.folder / REJECTS

    def part(self, number: int) -> Path:
        """The file of a staged part."""
        return self.parts / f"{number:08d}.arrow"


class Finish:
    """Builds the final files of one run and puts them in place."""

    def __init__(self, staging: Staging, plan: Plan, bundle: Bundle, settings: ScoreSettings) -> None:
        self._staging, self._plan, self._bundle, self._settings = staging, plan, bundle, settings

    def run(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Build everything, rename it into the run folder, and return the metrics.

        ``facts`` goes into ``run.json``.
        """
        remove_tree(self._staging.final)
        make_folder(self._staging.final / "predictions")
        metrics = self._metrics()
        self._predictions()
        if self._plan.rejects:
            self._build(REJECTS, lambda out: _copy(self._staging.rejects, out))
        write_bytes(self._staging.final / "metrics.json", to_json(metrics))
        write_bytes(self._staging.final / "run.json", to_json({**facts, "counts": metrics["counts"]}))
        worst = self._worst()
        write_bytes(self._staging.final / "report.html", render_run(facts, metrics, worst).encode())
        self._put_in_place()
        return metrics

    def _build(self, name: str, write: Any) -> None:  # noqa: ANN401 - a function of the output stream
        path = self._staging.final / name
        make_folder(path.parent)
        with atomic_write(path) as out:
            write(out)

    def _parts(self, file: int | None = None) -> Iterator[tuple[Part, StagedPart]]:
        for part in self._plan.parts:
            if file is None or part.file == file:
                yield part, self._open(part.number)

    def _open(self, number: int) -> StagedPart:
        return read_part(self._staging.part(number), len(self._bundle.labels))

    def _predictions(self) -> None:
        kind = self._settings.output_format
        names = [file.name for file in self._plan.files]
        if kind != "same":
            names = output_names(names, SUFFIXES[kind])
        for index, (file, name) in enumerate(zip(self._plan.files, names, strict=True)):
            output = Output(file, self._bundle.labels, self._settings.prefix)

            def write(out: IO[bytes], index: int = index, output: Output = output) -> None:
                write_predictions((part for _, part in self._parts(index)), output, kind, out)

            self._build(f"predictions/{name}", write)
