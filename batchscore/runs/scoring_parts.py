"""What takes the night: the shards of a run that are not staged yet are scored, staged and journalled.

A killed run finds here what was done before: whole shards, and micro-batches of unfinished ones.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from batchscore.errors import UsageError, printable
from batchscore.model.answer_bits import deciding_fingerprint, goes_alone
from batchscore.model.loading import Models, ModelSettings
from batchscore.model.references import RowsToScore
from batchscore.model.tuning import is_worth_tuning, tuned_budget
from batchscore.runs.accepting import answers_of_run, refuse_other_precision
from batchscore.runs.done_shards import DoneShards
from batchscore.runs.engines import local, pool_of
from batchscore.runs.engines.dispatching import Dispatcher, Patience
from batchscore.runs.planning import given_labels, read_parts
from batchscore.runs.reuse import Reuse, identity_of, open_reuse
from batchscore.runs.shard_scoring import Recipe, needs_texts, versions
from batchscore.runs.shards import ShardWriter, read_shards, shards_of
from batchscore.runs.spreading import Spreading, away
from batchscore.runs.work import MicroBatches, WorkDone
from batchscore.system.allocator import give_back_freed_memory
from batchscore.system.cores import usable_cores
from batchscore.system.journal import Journal
from batchscore.system.storage import remove_tree, sha256_of

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.model.scoring import Model
    from batchscore.records import Predictions, Rows, Shard
    from batchscore.runs.engines.pool import Pool, Ready
    from batchscore.runs.folder import Staging
    from batchscore.runs.opening import Opened
    from batchscore.runs.planning import Plan
    from batchscore.runs.shards import Staged
    from batchscore.system.terminal import Progress, ProgressFactory

_LOG = logging.getLogger(__name__)
STAGING_FORMAT = 10
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
            shards = shards_of(plan, self._settings.read)
            compute, done = self._resume(journal, shards)
            self.spent.take_over(entry for entry in journal.entries if entry.get("shard") in done)
            todo = [shard for shard in shards if shard.number not in done]
            self.deciding = _only_one(journal.entries)
            if not todo:
                return compute
            self._want(*_FINISHING_MODULES, *[_LABEL_ISSUES_MODULE] * plan.has_labels)
            make_pool = pool_of(self._settings, compute, plan.rows)
            if make_pool is not None:
                with self._bar(plan, shards, done) as bar:
                    return self._score_elsewhere(plan, todo, journal, compute, make_pool, bar)
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
            with contextlib.ExitStack() as stack:
                if reuse is not None:
                    stack.callback(reuse.close)
                bar = stack.enter_context(self._bar(plan, shards, done))
                micro_batches = MicroBatches(
                    self._staging.micro_batches, lambda rows, is_new: bar.add(rows, counted=is_new)
                )
                stack.callback(micro_batches.close)
                self._run_shards(plan, todo, model, journal, micro_batches, reuse)
            return compute
        finally:
            journal.close()

    @contextlib.contextmanager
    def _bar(self, plan: Plan, shards: Sequence[Shard], done: Set[int]) -> Iterator[Progress]:
        """The progress, which begins with what was done before."""
        bar = self._progress(plan.rows)
        try:
            bar.add(sum(shard.rows for shard in shards if shard.number in done), counted=False)
            yield bar
        finally:
            bar.close()

    def _score_elsewhere(
        self,
        plan: Plan,
        todo: Sequence[Shard],
        journal: Journal,
        recorded: Mapping[str, Any],
        make_pool: Callable[[Recipe], Pool],
        bar: Progress,
    ) -> dict[str, Any]:
        """Score the shards in scoring processes; the first of them finds out how, unless it is ``recorded``."""
        settings, compute = self._settings, dict(recorded)
        wanted = ModelSettings.of(settings, self._bundle)
        model: Model | None = None
        if self._source is not None:  # what is taken is proven here, with a model of the same kind
            rows = RowsToScore(plan.rows, lambda: self._first_texts(plan))
            model, compute = self._models.load(self._bundle, wanted, compute, rows)
        given = given_labels(plan, self._bundle, settings.label_map)
        writer = ShardWriter(self._staging.alone, given, answers_of_run(self._bundle, settings))
        recipe = Recipe(
            bundle=self._bundle,
            wanted=wanted,
            files=plan.files,
            read=settings.read,
            writer=writer,
            rows=plan.rows,
            first_texts=tuple(self._first_texts(plan))
            if needs_texts(self._bundle, wanted, plan.rows)
            else (),
            staging_format=STAGING_FORMAT,
            cores=usable_cores(),
            versions=versions(),
        )

        def bound(found: Ready) -> tuple[dict[str, Any], Reuse | None]:
            compute.update(found.compute)
            refuse_other_precision(settings, compute)
            if not journal.entries:
                remove_tree(self._staging.micro_batches)
                journal.append({"compute": compute})
            journal.append({"deciding": found.deciding})
            self.deciding = _only_one(journal.entries)
            return compute, self._reuse_with(model, found, stack)

        def staged(shard: Shard, answer: Staged, reuse: Reuse | None) -> None:
            work = self.spent.add(answer.work, 0.0)
            source = {"reused_from": reuse.identity} if reuse is not None and work.get("reused") else {}
            entry = {"shard": answer.number, "parts": answer.parts, "sha256": answer.sha256}
            done.add({**entry, "work": work, **source}, shard, lambda shard: bar.add(shard.rows))

        with contextlib.ExitStack() as stack, DoneShards(journal, self._staging.parts) as done:
            work = Spreading(plan, todo, settings.read, writer, bound, staged)
            self.spent.start(0)
            with contextlib.closing(make_pool(away(recipe))) as pool:
                patience = Patience(settings.compute.least_workers, settings.compute.wait_for_workers)
                dispatcher = Dispatcher(pool, work, compute, patience)
                dispatcher.run()
            self.spent.workers = dispatcher.most_ready
            work.finish()
        return compute

    def _reuse_with(self, model: Model | None, found: Ready, stack: contextlib.ExitStack) -> Reuse | None:
        """What takes answers of another night, if the ``model`` here is of the kind of that of the processes."""
        if model is None:
            return None
        model = model.with_inference(max_batch_tokens=found.compute["max_batch_tokens"])
        deciding = deciding_fingerprint(self._bundle, found.compute, STAGING_FORMAT, alone=goes_alone(model))
        if deciding != found.deciding:
            raise UsageError(
                f"--reuse: {printable(found.place)} is of another kind than this machine, so what is taken could not be proven here. "
                "Leave --reuse out, or start the run on a machine of that kind."
            )
        reuse = open_reuse(
            self._source, self._settings, model, deciding, self._fingerprint, self._staging.reused
        )
        if reuse is not None:
            stack.callback(reuse.close)
        return reuse

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

    def _resume(self, journal: Journal, shards: Sequence[Shard]) -> tuple[dict[str, Any], set[int]]:
        """The facts of an earlier start's computation, and the numbers of its intact shards.

        A shard with answers of a store or run counts only while that is named still: its audit may not have come to an end.
        """
        compute: dict[str, Any] = {}
        done: set[int] = set()
        parts = {shard.number: len(shard.parts) for shard in shards}
        taken_from = {entry["reused_from"] for entry in journal.entries if "reused_from" in entry}
        trusted = identity_of(self._source) if taken_from else None
        for entry in journal.entries:
            if entry.get("compute"):
                compute = entry["compute"]
            elif entry.get("reused_from", trusted) == trusted and self._is_whole(entry, parts):
                done.add(entry["shard"])
        return compute, done

    def _is_whole(self, entry: Mapping[str, Any], parts: Mapping[int, int]) -> bool:
        number = entry.get("shard")
        if number is None or parts.get(number) != entry.get("parts"):
            return False
        path = self._staging.shard(number)
        return path.exists() and sha256_of(path) == entry.get("sha256")

    def _run_shards(
        self,
        plan: Plan,
        todo: list[Shard],
        model: Model,
        journal: Journal,
        micro_batches: MicroBatches,
        reuse: Reuse | None,
    ) -> None:
        given = given_labels(plan, self._bundle, self._settings.label_map)
        writer = ShardWriter(self._staging, given, answers_of_run(self._bundle, self._settings))
        self.spent.start(model.workers)

        def sink(shard: Shard, rows: Sequence[Rows], predictions: Sequence[Predictions]) -> None:
            if reuse is not None:
                predictions = reuse.completed(shard, predictions)
            staged = writer.stage(shard, rows, predictions)
            work = self.spent.add(staged.work, micro_batches.earlier_seconds(shard))
            source = {"reused_from": reuse.identity} if reuse is not None and work.get("reused") else {}
            entry = {"shard": staged.number, "parts": staged.parts, "sha256": staged.sha256}
            done.add({**entry, "work": work, **source}, shard, micro_batches.staged)
            give_back_freed_memory()

        shards = read_shards(plan, todo, self._settings.read)
        with DoneShards(journal, self._staging.parts) as done:
            if reuse is None:
                local.run(shards, model, sink, micro_batches.watch)
            else:
                local.run(
                    reuse.unknown(shards),
                    model,
                    sink,
                    lambda shard: micro_batches.watch(shard, reuse.without(shard)),
                )
        if reuse is not None:
            reuse.finish()


def _only_one(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """By what the answers of all starts are known, if they are alike."""
    found = {entry["deciding"] for entry in entries if "deciding" in entry}
    return found.pop() if len(found) == 1 else None
