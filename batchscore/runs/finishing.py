"""From staged parts to the final files of a run: built in the staging folder, counted, hashed, renamed, ``_SUCCESS`` last.

Finishing may be killed and restarted at any point: it reads only the plan and the parts, and every file it builds
has the same bytes each time (except for times in ``run.json``, ``report.html`` and ``report.txt``).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from batchscore.config import LATEST
from batchscore.errors import as_named
from batchscore.evaluation import (
    Basis,
    parse_gates,
)
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.writing import Output, ReadBack
from batchscore.model.given import uses_labels
from batchscore.model.loading import ModelSettings
from batchscore.model.thresholds import thresholds_of
from batchscore.runs.accepting import answers_of_run
from batchscore.runs.as_written import WRITTEN, written_facts
from batchscore.runs.baselines import Baseline
from batchscore.runs.choices import unused_labels
from batchscore.runs.folder import (
    FACTS,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    REJECTS,
    Staging,
    output_of,
    prediction_names,
)
from batchscore.runs.measuring import MEASURED_BY, Measuring, StagedRows, Yardstick, build, write_json
from batchscore.runs.partitions import Partitions
from batchscore.runs.prediction_building import Builder, Building, ToBuild, is_as_read
from batchscore.runs.shards import StagedParts, shards_of
from batchscore.runs.task_options import tolerance_of
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import (
    await_clock,
    files_below,
    make_folder,
    manifest,
    publish,
    publish_all,
    remove_file,
    remove_tree,
    sha256_of,
    sync_folder,
    write_bytes,
)

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle
    from batchscore.runs.planning import Plan

_ROW_PARTITIONS = "partitions"
"""In the staging folder: the partition of each row."""
_Read = Sequence[tuple[ToBuild, ReadBack]]
"""The prediction files, and what each was when it was read back."""


def outputs_of(plan: Plan, bundle: Bundle, settings: ScoreSettings) -> list[Output]:
    """What the prediction files of a run are made from, one for each input."""
    answers, columns = answers_of_run(bundle, settings), OutputColumns.of(settings)
    return [Output(file, answers, columns) for file in plan.files]


class Finish:
    """Builds the final files of one run and publishes them."""

    def __init__(
        self,
        staging: Staging,
        plan: Plan,
        bundle: Bundle,
        settings: ScoreSettings,
        baseline: Baseline | None = None,
    ) -> None:
        self._staging, self._plan, self._bundle, self._settings = staging, plan, bundle, settings
        self._baseline = baseline
        self._answers = answers_of_run(bundle, settings)
        self._staged = StagedParts(staging, shards_of(plan, settings.read), self._answers)
        self._numbers: dict[int, list[int]] = {file: [] for file in range(len(plan.files))}
        """The numbers of the parts of each file."""
        for part in plan.parts:
            self._numbers[part.file].append(part.number)
        self._basis = Basis(
            task=bundle.task,
            labels=bundle.labels,
            calibration_error=self._calibration_error(),
            temperature=self._temperature(),
            thresholds=thresholds_of(bundle, settings.thresholds),
            tolerance=tolerance_of(bundle, plan, settings),
        )

    def run(self, make_facts: Callable[[Mapping[str, int]], Mapping[str, Any]]) -> dict[str, Any]:
        """Build everything, rename it into the run folder, and return the metrics.

        ``make_facts`` makes ``run.json`` from the row counts, called after the other files are built so that their time counts.
        """
        remove_tree(self._staging.final)
        make_folder(self._staging.final / PREDICTIONS)
        rows = StagedRows(
            self._plan.files,
            self._plan.parts,
            self._staged.open,
            self._staging.folder,
            block=self._staged.block,
        )
        by, final = self._yardstick(), self._staging.final
        measuring = Measuring(rows, by)
        builder = Builder(final / PREDICTIONS, self._staged, self._settings.output_format, self._partitions())
        wanted = list(self._wanted(builder.partitions))
        with Building(builder, wanted, self._plan.rows) as building:
            metrics = measuring.metrics()
            listed = measuring.list_mismatches(metrics, final)
            read: _Read = list(zip(wanted, building.finish(), strict=True))
        if self._plan.rejects:
            build(final / REJECTS, self._copy_rejects)
        write_json(final / METRICS, metrics)
        facts = {**make_facts(metrics["counts"]), MEASURED_BY: by.to_json(), WRITTEN: written_facts(final)}
        write_json(final / FACTS, facts)
        measuring.write_pages(facts, metrics, listed, final, as_named(self._settings.output.absolute()))
        read = self._read_again(builder, read)
        self._assert_conserved(read)
        self._put_in_place(read)
        return metrics

    def _copy_rejects(self, out: IO[bytes]) -> None:
        with self._staging.rejects.open_read() as rejects:
            shutil.copyfileobj(rejects, out)

    def _partitions(self) -> Partitions | None:
        if (column := self._settings.partition_by) is None:
            return None
        path = self._staging.folder / _ROW_PARTITIONS
        return Partitions(self._plan.files, self._plan.parts, column, path, self._staged.open)

    def _wanted(self, partitions: Partitions | None) -> Iterator[ToBuild]:
        """The prediction files; the folders that they are built in are made."""
        names = prediction_names([file.name for file in self._plan.files], self._settings.output_format)
        outputs = outputs_of(self._plan, self._bundle, self._settings)
        made: set[OwnPath] = set()
        for index, (output, name) in enumerate(zip(outputs, names, strict=True)):
            for folder in [""] if partitions is None else partitions.folders(index):
                path = self._staging.final / f"{PREDICTIONS}/{folder}/{name}"
                if path.parent not in made:
                    make_folder(path.parent)
                    made.add(path.parent)
                yield ToBuild(path, output, index, folder, self._numbers[index], output.file.rows)

    def _read_again(self, builder: Builder, read: _Read) -> _Read:
        """What the prediction files are now: one that is no longer as it was when it was read is read again."""
        final = self._staging.final
        now = {final / entry.name: entry.facts for entry in final.walk()}
        return [
            (each, back if is_as_read(now.get(each.path), back) else builder.read(each))
            for each, back in read
        ]

    def _assert_conserved(self, read: _Read) -> None:
        """For each file, rows read = rows counted in its finished predictions + rejects."""
        found = [0] * len(self._plan.files)
        for each, back in read:
            found[each.file] += back.rows
        for file, rows in zip(self._plan.files, found, strict=True):
            if rows + file.rejects != file.rows:
                raise RuntimeError(
                    f"{file.name}: {file.rows} rows were read and {file.rejects} of them rejected, but its predictions "
                    f"have {rows}. Nothing was put in place; please report this."
                )
        listed = 0
        if self._plan.rejects:
            with (self._staging.final / REJECTS).open_read() as rejects:
                listed = sum(not line.isspace() for line in rejects)
        if listed != self._plan.rejects:
            raise RuntimeError(f"{self._plan.rejects} rows were rejected, but {listed} are listed.")

    def _yardstick(self) -> Yardstick:
        settings, bundle = self._settings, self._bundle
        used = uses_labels(bundle, settings.label_map)
        return Yardstick(
            basis=self._basis,
            model=bundle.fingerprint,
            trained=bundle.facts.get("metrics", {}),
            gates=parse_gates(settings.fail_below, settings.fail_above, bundle.labels, bundle.task),
            promise=settings.accepting,
            slice_columns=settings.slice_columns,
            baseline=self._baseline,
            is_first=self._baseline is None and settings.baseline == LATEST,
            unused_labels=unused_labels(self._plan, uses_labels=used),
            with_text=settings.with_text,
        )

    def _calibration_error(self) -> float | None:
        error = self._bundle.facts.get("metrics", {}).get("calibration_error")
        return None if error is None else float(error)

    def _temperature(self) -> float | None:
        """The temperature that calibrated the probabilities; None with ``windows``, where means cannot be uncalibrated."""
        long_text = ModelSettings.of(self._settings, self._bundle).long_text
        return None if long_text == "windows" else self._bundle.calibration_temperature

    def _put_in_place(self, read: _Read) -> None:
        """Remove files of an earlier run and rename every file to its final name, the manifest last."""
        output, final = output_of(self._settings), self._staging.final
        names = files_below(final)
        known = {each.path: back.sha256 for each, back in read}
        hashes = {name: known.get(final / name) or sha256_of(final / name) for name in names}
        write_bytes(final / MANIFEST, manifest(hashes))
        before = self._staging.replaced()
        self._staging.note_replaced(before | set(names))
        (output / MANIFEST).unlink(missing_ok=True)
        sync_folder(output)
        for stale in before - set(names):
            remove_file(output, stale)
        publish_all(final, output, [(name, name) for name in names])
        await_clock(*[output / name for name in names[-1:]])
        publish(final / MANIFEST, output / MANIFEST)
