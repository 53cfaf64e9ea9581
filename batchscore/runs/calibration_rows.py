"""``--accept``: which calibration rows a run's thresholds are chosen on, and what is refused because they are of something else.

They are the bundle's own held-out rows, or those of a finished run of the same model (``--accept-on``). Either way they were
scored as tonight's rows are: in the same precision, with long texts treated alike. What differs is refused, as the promise
would be about other probabilities.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from batchscore.errors import DataError, ModelError, NoInputError, UsageError, printable
from batchscore.evaluation import Basis
from batchscore.evaluation.acceptance import AnsweredRows, chosen_acceptance
from batchscore.formats.answers import answers_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import texts_of_file
from batchscore.model.held_out import HeldOutAnswers
from batchscore.records import Task
from batchscore.runs.accepting import refuse_other_precision
from batchscore.runs.earlier_answers import earlier_answers_of
from batchscore.runs.earlier_files import EarlierFile, files_of, settings_of
from batchscore.runs.evaluation_folder import evaluation_of
from batchscore.runs.folder import (
    DAMAGE,
    FACTS,
    LABELS,
    MANIFEST,
    METRICS,
    RunFolder,
    is_finished,
    read_facts,
    read_run,
)
from batchscore.runs.kept_acceptance import kept_acceptance, source_of
from batchscore.runs.late_labels import LateLabels
from batchscore.runs.late_rows import LateRows
from batchscore.system.own_paths import OwnPath, own, own_folder
from batchscore.system.storage import read_manifest, sha256_of

if TYPE_CHECKING:
    from batchscore.config import Acceptance, ScoreSettings
    from batchscore.formats.staged import StagedPart
    from batchscore.model.bundle import Bundle

OF_BUNDLE = "the bundle's held-out rows"
_PROBABILITY = "probability"


def with_acceptance(settings: ScoreSettings, bundle: Bundle) -> ScoreSettings:
    """The settings with what ``--accept`` comes to; ``auto`` is then the precision that the calibration rows were scored in.

    Raises:
        UsageError: options that contradict each other, or a bundle without such rows.
        NoInputError: ``--accept-on`` is no finished run.
        ModelError: it is one of another model.
        DataError: it is damaged, or has no labels.
    """
    if settings.accept is None:
        return settings
    found = kept_acceptance(settings, bundle) if settings.accept_on is not None else None
    if found is None:
        rows = (
            _rows_of_bundle(bundle)
            if settings.accept_on is None
            else _rows_of_run(settings.accept_on, settings, bundle)
        )
        _refuse_other_long_text(settings, bundle, rows)
        found = _chosen(settings.accept, settings, bundle, rows)
    compute = settings.compute
    if compute.precision == "auto":
        compute = dataclasses.replace(compute, precision=found.computed_in)
    settings = dataclasses.replace(settings, accepting=found, compute=compute)
    refuse_other_precision(settings, {"precision": compute.precision})
    return settings


def _rows_of_bundle(bundle: Bundle) -> HeldOutAnswers:
    rows = HeldOutAnswers.of_facts(bundle.facts)
    if rows is not None:
        return rows
    raise UsageError(
        f"--accept: {printable(bundle.path)} keeps no answers to held-out rows, on which thresholds could be chosen (bundles of "
        "earlier versions and plain folders have none). Score labelled rows that the model was not trained on with it, and name "
        "that run with --accept-on RUN_DIR; or train again, with 200 evaluation rows or more."
    )


def _refuse_other_long_text(settings: ScoreSettings, bundle: Bundle, rows: HeldOutAnswers) -> None:
    tonight = settings.long_text or bundle.long_text
    if tonight != rows.long_text:
        raise UsageError(
            f"--accept: its calibration rows were scored with --long-text {rows.long_text}, and tonight's are with {tonight}. Leave "
            "--long-text out, or name a labelled run that was scored so with --accept-on RUN_DIR."
        )
    if settings.accept_on is None and settings.missing_pair not in (None, bundle.missing_pair):
        raise UsageError(
            f"--accept: its calibration rows were scored with --missing-pair {bundle.missing_pair}. Leave --missing-pair out, or "
            "name a labelled run that was scored so with --accept-on RUN_DIR."
        )


def _chosen(precision: float, settings: ScoreSettings, bundle: Bundle, rows: HeldOutAnswers) -> Acceptance:
    is_own = settings.accept_on is None
    temperature = bundle.calibration_temperature if is_own else 1.0  # of other rows it is no news
    answered = AnsweredRows(rows.predicted, rows.probability, rows.right)
    found = chosen_acceptance(
        precision, settings.accept_confidence, answered, len(bundle.labels), temperature
    )
    source = OF_BUNDLE if is_own else source_of(settings)
    return dataclasses.replace(found, source=source, computed_in=rows.precision)


# ------------------------------------------------------------------------------------------------------ another run's rows


def _rows_of_run(folder: Path, settings: ScoreSettings, bundle: Bundle) -> HeldOutAnswers:
    if not is_finished(folder):
        raise NoInputError(
            f"--accept-on {printable(folder)} is no finished run. Name the folder of a labelled one."
        )
    try:
        hashes = read_manifest(folder)
        for name in (FACTS, METRICS):
            _check(folder, name, hashes[name])
        run = read_run(folder)
        _refuse_another_model(folder, run, bundle)
        _refuse_other_ways(folder, run, settings, bundle)
        rows = _with_later_labels(run, bundle)
        if rows is None:
            rows = _answered(folder, run, hashes)
    except DataError:
        raise
    except DAMAGE as error:
        raise _damaged(folder, f"it cannot be read: {printable(repr(error))[:200]}") from error
    if not len(rows.predicted):
        raise DataError(
            f"--accept-on {printable(folder)}: no row has both a known label and a prediction. Name a run over labelled rows."
        )
    return HeldOutAnswers(
        rows.predicted.astype(np.int32),
        rows.probability,
        rows.right,
        str(run.facts["compute"]["precision"]),
        str(run.options.get("long_text") or bundle.long_text),
    )


def _with_later_labels(run: RunFolder, bundle: Bundle) -> AnsweredRows | None:
    """The rows of a run whose labels came later, from its evaluation beside it; None if there is none."""
    place = own(evaluation_of(run.path))
    if not place.exists():
        return None
    facts = read_facts(place)
    if (facts.get("evaluates") or {}).get("manifest") != sha256_of(own_folder(run.path) / MANIFEST):
        raise DataError(
            f"{printable(place)} is the evaluation of another run than {printable(run.path)}. Evaluate that run again."
        )
    _check(place.path, LABELS, read_manifest(place)[LABELS])
    basis = Basis(bundle.task, bundle.labels)
    label_map = (facts.get("options") or {}).get("label_map") or {}
    with tempfile.TemporaryDirectory(prefix="batchscore-accept-") as folder:
        rows = LateRows(run, basis, OwnPath(Path(folder)), run_id_column=None, label_map=label_map)
        labels = LateLabels(rows, basis.task, "refuse")
        labels.take_over(place / LABELS, basis.labels)
        return _joined([_of_part(rows.open(part.number)) for part in rows.parts])


def _of_part(staged: StagedPart) -> AnsweredRows:
    found, given = staged.predictions, staged.given
    both = (found.predicted >= 0) & (given >= 0)
    best = found.probabilities[np.arange(len(given)), np.maximum(found.predicted, 0)]
    return AnsweredRows(found.predicted[both], best[both], (found.predicted == given)[both])


def _joined(parts: Sequence[AnsweredRows]) -> AnsweredRows:
    predicted, probability, right = (
        np.concatenate([np.zeros(0), *(part[k] for part in parts)]) for k in range(3)
    )
    return AnsweredRows(predicted.astype(np.int32), probability.astype(np.float32), right.astype(np.bool_))


def answered_rows(folder: Path) -> AnsweredRows:
    """The rows of a finished run that have both a known label and a prediction."""
    return _answered(folder, read_run(folder), read_manifest(folder))


def _answered(folder: Path, run: RunFolder, hashes: Mapping[str, str]) -> AnsweredRows:
    labels, called = run.model["labels"], OutputColumns.of_options(run.options)
    files = [file for file in files_of(run, hashes) if file.has_rows]
    return _joined([part for file in files for part in _answers(folder, file, labels, called, hashes)])


def _refuse_another_model(folder: Path, run: RunFolder, bundle: Bundle) -> None:
    if run.model["fingerprint"] != bundle.fingerprint:
        raise ModelError(
            f"--accept-on {printable(folder)} was scored by another model ({printable(run.model['fingerprint'])[:12]}, this one is "
            f"{bundle.fingerprint[:12]}), and says nothing of this one's probabilities. Score these rows with this model first."
        )


def _refuse_other_ways(folder: Path, run: RunFolder, settings: ScoreSettings, bundle: Bundle) -> None:
    """Refuse a run whose rows were scored or predicted in another way than tonight's will be."""
    before, problem = run.options, ""
    if before.get("thresholds"):
        problem = "its labels were predicted with --threshold, and --accept is of the likeliest ones"
    elif (before["read"].get("text_pair_column") is not None) != bundle.takes_pairs:
        problem = "one of the two runs has two texts a row, and the other one"
    elif bundle.takes_pairs and (before.get("missing_pair") or bundle.missing_pair) != (
        settings.missing_pair or bundle.missing_pair
    ):
        problem = "it was scored with another --missing-pair"
    if problem:
        raise UsageError(f"--accept-on {printable(folder)}: {problem}. Name another run.")


def _answers(
    folder: Path, file: EarlierFile, labels: Sequence[str], called: OutputColumns, hashes: Mapping[str, str]
) -> Iterator[AnsweredRows]:
    """Predicted labels, their probabilities, and whether they were right, of the rows with both a label and a prediction."""
    names = called.added_names(answers_of(Task.SINGLE_LABEL, labels))
    if _PROBABILITY not in names or not file.columns.given:
        lacking = "the probability" if _PROBABILITY not in names else "the label"
        if not file.chosen.given:
            return
        raise DataError(
            f"--accept-on {printable(folder)}: the predictions of {printable(file.name)} do not hold {lacking} of each row. Score "
            "that run again with those columns among its predictions (see --probabilities, --keep-columns and --drop-columns)."
        )
    _check(folder, file.path.relative_to(folder).as_posix(), hashes[file.path.relative_to(folder).as_posix()])
    reader = earlier_answers_of(Task.SINGLE_LABEL, labels, called)
    column = names[_PROBABILITY]
    wanted = [*dict.fromkeys([*reader.columns, *file.columns.given, column])]
    for texts in texts_of_file(file.source, settings_of(file), wanted):
        predicted = reader.predicted(texts)
        given = reader.given(texts, file.columns, file.meanings)
        both = (predicted >= 0) & (given >= 0)
        probability = np.array(
            [float(each) for each, is_in in zip(texts[column], both, strict=True) if is_in and each]
        )
        yield AnsweredRows(predicted[both], probability, (predicted == given)[both])


def _check(folder: Path, name: str, digest: str) -> None:
    if sha256_of(own_folder(folder) / name) != digest:
        raise _damaged(folder, f"{printable(name)} is not as it was written")


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(
        f"--accept-on {printable(folder)}: {what}. Score that run again with --force, or name another."
    )
