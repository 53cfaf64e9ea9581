"""The part of a run that takes the night: the parts that are not staged yet are scored, staged and journalled.

A killed run finds here what was done before: whole parts, and micro-batches of unfinished ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchscore.formats.staged import stage_part
from batchscore.model.answer_bits import deciding_fingerprint, goes_alone
from batchscore.model.loading import Models, ModelSettings
from batchscore.model.references import RowsToScore
from batchscore.model.tuning import is_worth_tuning, tuned_budget
from batchscore.runs.accepting import answers_of_run, refuse_other_precision
from batchscore.runs.engines import ENGINES
from batchscore.runs.planning import given_labels, read_parts
from batchscore.runs.reuse import Reuse, identity_of, open_reuse
from batchscore.runs.work import MicroBatches, WorkDone
from batchscore.system.allocator import give_back_freed_memory
from batchscore.system.journal import Journal
from batchscore.system.storage import remove_tree, sha256_of

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.scoring import Model
    from batchscore.records import Part, Predictions, Rows
    from batchscore.runs.folder import Staging
    from batchscore.runs.opening import Opened
    from batchscore.runs.planning import Plan
    from batchscore.system.terminal import ProgressFactory

_LOG = logging.getLogger(__name__)
STAGING_FORMAT = 8
"""When staged parts are of an older kind: it counts for the fingerprint of a run."""
_FINISHING_MODULES = ("jinja2",)
_LABEL_ISSUES_MODULE = "cleanlab.experimental.label_issues_batched"
"""Modules that finishing a run imports, and the one that it imports only if rows have labels."""


class Scoring:
    """Scores the parts of one run into its staging folder; the caller holds the lock of the run's folder."""

    def __init__(
        self,
        staging: Staging,
        opened: Opened,
        settings: ScoreSettings,
        models: Models,
        fingerprint: str,
        progress: ProgressFactory,
        want: Callable[..., None],
    ) -> None:
        """``fingerprint`` is that of the results; ``want`` imports ahead."""
        self._staging, self._settings, self._models = staging, settings, models
        self._bundle, self._source, self._fingerprint = opened.bundle, opened.source, fingerprint
        self._progress, self._want = progress, want
        self.spent = WorkDone()
        self.deciding: str | None = None
        """By what its answers are known another night; None if not all are known by the same."""

    def score(self, plan: Plan) -> dict[str, Any]:
        """Score the parts that are not staged yet; returns the facts of the computation (device, precision and so on)."""
        journal = self._staging.open_journal()
        try:
            compute, done = self._resume(journal)
            self.spent.take_over(entry for entry in journal.entries if entry.get("part") in done)
            todo = [part for part in plan.parts if part.number not in done]
            self.deciding = _only_one(journal.entries)
            if not todo:
                return compute
            self._want(*_FINISHING_MODULES, *[_LABEL_ISSUES_MODULE] * plan.has_labels)
            wanted = ModelSettings.of(self._settings, self._bundle)
            rows = RowsToScore(plan.rows, lambda: self._first_texts(plan))
            model, compute = self._models.load(self._bundle, wanted, compute, rows)
            refuse_other_precision(self._settings, compute)
            if (
                not journal.entries
            ):  # nor was this decided before, so what may be noted was made in another way
                remove_tree(self._staging.micro_batches)
                compute = self._tuned(plan, model, compute)
                journal.append({"compute": compute})
            model = model.with_inference(max_batch_tokens=compute["max_batch_tokens"])
            deciding = deciding_fingerprint(self._bundle, compute, STAGING_FORMAT, alone=goes_alone(model))
            journal.append({"deciding": deciding})
            self.deciding = _only_one(journal.entries)
            reuse = open_reuse(
                self._source, self._settings, model, deciding, self._fingerprint, self._staging.reused
            )
            bar = self._progress(plan.rows)
            bar.add(sum(part.rows for part in plan.parts if part.number in done), counted=False)
            micro_batches = MicroBatches(
                self._staging.micro_batches, lambda rows, is_new: bar.add(rows, counted=is_new)
            )
            try:
                self._run_parts(plan, todo, model, journal, micro_batches, reuse)
            finally:
                micro_batches.close()
                bar.close()
                if reuse is not None:
                    reuse.close()
            return compute
        finally:
            journal.close()

    def _tuned(self, plan: Plan, model: Model, compute: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of a new run's computation, with the token budget tuned on the run's first rows if that pays."""
        wanted = self._settings.compute.max_batch_tokens
        if wanted is not None or not is_worth_tuning(model, plan.rows):
            return dict(compute)
        budget = tuned_budget(model, self._first_texts(plan))
        _LOG.info("%d tokens in a micro-batch are best on %s", budget, model.backend.device)
        return {**compute, "max_batch_tokens": budget}

    def _first_texts(self, plan: Plan) -> Sequence[Any]:
        """The texts of the first part, or its pairs of texts."""
        ((_, rows),) = read_parts(plan, plan.parts[:1], self._settings.read)
        return rows.given_texts

    def _resume(self, journal: Journal) -> tuple[dict[str, Any], set[int]]:
        """The facts of an earlier start's computation, and the numbers of its intact parts.

        A part with answers of a store or run counts only while that is named still: its audit may not have come to an end.
        """
        compute: dict[str, Any] = {}
        done: set[int] = set()
        taken_from = {entry["reused_from"] for entry in journal.entries if "reused_from" in entry}
        trusted = identity_of(self._source) if taken_from else None
        for entry in journal.entries:
            if entry.get("compute"):
                compute = entry["compute"]
            elif entry.get("reused_from", trusted) == trusted and self._is_whole(entry):
                done.add(entry["part"])
        return compute, done

    def _is_whole(self, entry: Mapping[str, Any]) -> bool:
        if entry.get("part") is None:
            return False
        path = self._staging.part(entry["part"])
        return path.exists() and sha256_of(path) == entry.get("sha256")

    def _run_parts(
        self,
        plan: Plan,
        todo: list[Part],
        model: Model,
        journal: Journal,
        micro_batches: MicroBatches,
        reuse: Reuse | None,
    ) -> None:
        given = given_labels(plan, self._bundle, self._settings.label_map)
        answers = answers_of_run(self._bundle, self._settings)
        self.spent.start(model.workers)

        def sink(part: Part, rows: Rows, predictions: Predictions) -> None:
            path = self._staging.part(part.number)
            if reuse is not None:
                predictions = reuse.completed(part, predictions)
            indices = given[part.file].indices(rows.labels, len(rows.texts))
            stage_part(path, rows, predictions, indices, answers)
            work = self.spent.add(predictions.work, micro_batches.earlier_seconds(part))
            source = {"reused_from": reuse.identity} if reuse is not None and work.get("reused") else {}
            journal.append({"part": part.number, "sha256": sha256_of(path), "work": work, **source})
            micro_batches.staged(part)
            give_back_freed_memory()

        parts = read_parts(plan, todo, self._settings.read)
        engine = ENGINES[self._settings.engine]
        if reuse is None:
            engine(parts, model, sink, micro_batches.watch)
        else:
            engine(
                reuse.unknown(parts), model, sink, lambda part: micro_batches.watch(part, reuse.without(part))
            )
            reuse.finish()


def _only_one(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """By what the answers of all starts are known, if they are alike."""
    found = {entry["deciding"] for entry in entries if "deciding" in entry}
    return found.pop() if len(found) == 1 else None
