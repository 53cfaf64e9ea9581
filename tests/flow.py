"""Everything between an input file and its prediction file but the model: plan, read, stage, write."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchscore.config import ReadSettings, ScoreSettings
from batchscore.evaluation import Basis
from batchscore.formats.answers import answers_of
from batchscore.formats.inputs import find_files, output_names
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.registry import suffix_of
from batchscore.formats.staged import Block, Section, StagedPart, read_part, stage_shard
from batchscore.formats.writing import Output, write_predictions
from batchscore.model.bundle import Bundle
from batchscore.model.heads import Activation, Head
from batchscore.records import Predictions, Rows, Status, Task
from batchscore.runs import mismatches
from batchscore.runs.mismatch_columns import Keys, MismatchColumns, joined_keys, mismatch_columns_of
from batchscore.runs.mismatch_files import write_both
from batchscore.runs.mismatches import MismatchTable
from batchscore.runs.planning import Plan, given_labels, make_plan, read_parts
from batchscore.system.own_paths import own

LABELS = ("NEGATIVE", "POSITIVE")


def fake_bundle(labels: Sequence[str] = LABELS) -> Bundle:
    """A bundle that exists in memory alone."""
    return Bundle(
        Path("fake"),
        Head(Task.SINGLE_LABEL, tuple(labels), Activation.SOFTMAX),
        512,
        1.0,
        "head",
        None,
        {},
        "0" * 64,
    )


def fake_predictions(rows: Rows, n_labels: int) -> Predictions:
    """What depends on nothing but a row's place and whether it has a text."""
    status = np.array(
        [
            Status.NULL_TEXT if t is None else Status.EMPTY_TEXT if not t.strip() else Status.OK
            for t in rows.texts
        ],
        dtype=np.int8,
    )
    place = np.array(rows.row, dtype=np.int64)
    predicted = (place % n_labels).astype(np.int32)
    sure = ((place % 97) / 200 + 0.5).astype(np.float32)
    probabilities = np.repeat(((1 - sure) / (n_labels - 1))[:, None], n_labels, axis=1).astype(np.float32)
    probabilities[np.arange(len(place)), predicted] = sure
    missing = status != Status.OK
    probabilities[missing], predicted[missing] = np.nan, -1
    n_tokens = np.where(missing, -1, 3 + place % 600).astype(np.int32)
    return Predictions(status, predicted, probabilities, n_tokens, n_tokens > 512)


@dataclass
class Flow:
    """What came out."""

    folder: Path
    plan: Plan
    rejects: list[dict[str, Any]]
    rows: list[Rows]
    staged: list[StagedPart]
    outputs: dict[str, Path]
    bundle: Bundle

    @property
    def only(self) -> Path:
        """The one prediction file."""
        (path,) = self.outputs.values()
        return path

    def raw_rejects(self) -> list[bytes]:
        """The bytes of the rejects."""
        return [base64.b64decode(reject["raw"]) for reject in self.rejects]

    def report(self) -> tuple[bytes, bytes]:
        """``mismatches.parquet`` and ``.csv``; the probability of the given label is its quality."""
        table, columns, folder = self._table(), self._columns(), own(self.folder / "mismatches")
        found = mismatches.AllMismatches(table, folder)
        for staged, at, keys in self._found(columns):
            if len(keys):
                found.add(staged, at, keys)
        parquet, csv = io.BytesIO(), io.BytesIO()
        write_both(table, found.chunks(lambda quality: quality < 0.2), parquet, csv)
        found.close()
        return parquet.getvalue(), csv.getvalue()

    def table(self) -> tuple[MismatchTable, Keys]:
        """The columns of the report, and its rows in order."""
        return self._table(), joined_keys([keys for *_, keys in self._found(self._columns())]).in_order()

    def _columns(self) -> MismatchColumns:
        return mismatch_columns_of(Basis(self.bundle.task, self.bundle.labels))

    def _table(self) -> MismatchTable:
        parts, files = self.plan.parts, self.plan.files
        return MismatchTable(files, parts, self._columns(), lambda number: self.staged[number])

    def _found(self, columns: MismatchColumns) -> Iterator[tuple[StagedPart, NDArray[np.int64], Keys]]:
        for part, staged in zip(self.plan.parts, self.staged, strict=True):
            given = np.maximum(staged.given, 0)
            quality = staged.predictions.probabilities[np.arange(len(given)), given]
            yield staged, *mismatches.keys_of([part.number], Block.of(staged), quality, columns)


def flow(
    folder: Path,
    *inputs: Path,
    labels: Sequence[str] = LABELS,
    read: ReadSettings | None = None,
    **options: Any,
) -> Flow:
    """Plan, read, stage and write ``inputs``, with made-up predictions, below ``folder``."""
    settings = ScoreSettings(
        tuple(map(str, inputs)), "fake", folder / "run", read=read or ReadSettings(), **options
    )
    bundle = fake_bundle(labels)
    rejects = io.BytesIO()
    found = find_files(settings.inputs, settings.read.format, settings.output)
    plan = make_plan(found, bundle, settings, rejects)
    plan = Plan.from_json(json.loads(json.dumps(plan.to_json())))  # as a resumed run has it
    given = given_labels(plan, bundle, settings.label_map)
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    all_rows, staged, answers = [], [], answers_of(bundle.task, bundle.labels)
    for part, rows in read_parts(plan, plan.parts, settings.read):
        path = folder / "parts" / f"{part.number}.arrow"
        predictions = fake_predictions(rows, len(labels))
        indices = given[part.file].indices(rows.labels, len(rows.texts))
        stage_shard(path, [Section(rows, predictions, indices)], answers)
        all_rows.append(rows)
        staged.append(read_part(path, answers))
    outputs = _written(folder, plan, staged, bundle, settings)
    lines = [json.loads(line) for line in rejects.getvalue().splitlines()]
    return Flow(folder, plan, lines, all_rows, staged, outputs, bundle)


def _written(
    folder: Path, plan: Plan, staged: list[StagedPart], bundle: Bundle, settings: ScoreSettings
) -> dict[str, Path]:
    kind = settings.output_format
    names = [file.name for file in plan.files]
    finals = names if kind == "same" else output_names(names, suffix_of(kind))
    outputs = {}
    for index, (name, final) in enumerate(zip(names, finals, strict=True)):
        parts = [part for each, part in zip(plan.parts, staged, strict=True) if each.file == index]
        path = folder / "predictions" / final
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") as out:
            write_predictions(
                parts,
                Output(plan.files[index], answers_of(bundle.task, bundle.labels), OutputColumns.of(settings)),
                kind,
                out,
            )
        outputs[name] = path
    return outputs
