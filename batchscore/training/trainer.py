"""Run a training: data, base model, fit, save, examine, seal, rename."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchscore.config import fingerprint
from batchscore.errors import DataError, UsageError, printable
from batchscore.model.backends.torch_backend import faster_precisions, resolve_device
from batchscore.model.bundle import open_bundle, seal, sign_bundle
from batchscore.model.bundle_facts import FACTS
from batchscore.model.signing import signing_key
from batchscore.reports.linear_baseline import linear_line
from batchscore.system.allocator import keep_freed_memory
from batchscore.system.storage import make_folder, remove_tree, write_bytes
from batchscore.training.attempts import Attempt, Material, attempt
from batchscore.training.base_check import usable_base
from batchscore.training.base_model import (
    BUILTIN_HUB_ID,
    hidden_size_of,
    kept_layers,
    open_base,
    pooling_for_frozen_base,
    pooling_of,
    poolings_to_try,
)
from batchscore.training.bundle_content import calibration_texts, hub_id, task_facts, versions
from batchscore.training.card import card
from batchscore.training.context import NoProgress, Progress, Tell, TrainingContext
from batchscore.training.data import load_data
from batchscore.training.examination import (
    Examination,
    Example,
    n_selection_rows,
    n_validation_rows,
    open_saved,
)
from batchscore.training.hygiene import hygiene_of
from batchscore.training.learning_curve import learning_curve
from batchscore.training.linear_baseline import compared_with_linear
from batchscore.training.objectives import strata_of
from batchscore.training.outcome import Fitted
from batchscore.training.results import results_of
from batchscore.training.saved_units import in_the_weights
from batchscore.training.self_training import self_trained
from batchscore.training.soft_labels import with_soft_labels
from batchscore.training.splits import TrainingData, stratified
from batchscore.training.student import held_against_teachers
from batchscore.training.suspects import suspects_of
from batchscore.training.teachers import open_teachers, taught_goal
from batchscore.training.teaching import Teaching, teaching_of
from batchscore.training.telling import tell_data, tell_plan
from batchscore.training.tokenized_rows import TokenizedRows, fit_rows, row_states, tokenized_splits
from batchscore.training.tuning import HELD_OUT_SHARE, MOST_ROWS, Trial, best_trial, candidates, search
from batchscore.training.unlabelled import Unlabelled, load_unlabelled
from batchscore.training.work_folder import begin, publish_bundle, work_folder, writing

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle
    from batchscore.training.settings import Hyperparameters, TrainSettings

_BUNDLE, _PROBED = "bundle", "probed"
_HARMLESS = ("output", "resume", "force", "read", "corrections", "sign")
"""Settings without effect on the bundle; ``read`` and ``corrections`` have one only through the rows, whose hash counts."""
_TOLD_SUSPECTS = 10
SAVE_SECONDS = 60.0
"""The least time between two checkpoints."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrainResult:
    """The result of a training."""

    output: Path
    labels: tuple[str, ...]
    rows: int
    """Training rows."""
    metrics: dict[str, Any]
    examples: tuple[Example, ...]
    """The first two evaluation rows."""
    mismatches: tuple[Example, ...]
    """The first two evaluation rows whose prediction differs from the given label."""
    fingerprint: str
    seconds: float
    was_done: bool = False
    """Whether the bundle was already there, from the same training."""


def train(
    settings: TrainSettings,
    progress: Callable[[int], Progress],
    tell: Tell = lambda _: None,
) -> TrainResult:
    """Train a classifier and write its bundle to ``settings.output``, atomically.

    ``progress`` gets the number of rows to come; ``tell`` gets lines for people.

    Raises:
        BatchscoreError: its class says what is wrong: data, base model, output, storage.
    """
    started = time.monotonic()
    settings = dataclasses.replace(settings, output=Path(os.path.realpath(settings.output)))
    _silence()
    key = None if settings.sign is None else signing_key(settings.sign)
    if settings.resume and (done := _finished(settings, started)) is not None:
        if key is not None:
            sign_bundle(settings.output, key)
        return done
    keep_freed_memory()
    with work_folder(settings.output, settings.force, settings.resume) as work:
        base, padding_mode = usable_base(settings, work / _PROBED)
        job = _job(settings, base)
        precision, is_resumed = begin(work, job.fingerprint(), lambda: _precision(settings.precision))
        watch = Watch(progress, tell)
        context = TrainingContext(
            work, resolve_device("auto"), precision, NoProgress(), tell, SAVE_SECONDS, padding_mode
        )
        if is_resumed:
            tell(f"going on from what was left in {printable(work)}")
        with writing(work):
            trained = _trained(job, context, watch)
        facts = _facts(job, trained)
        facts["training"]["seconds"] = round(time.monotonic() - started, 1)
        folder = work / _BUNDLE
        write_bytes(folder / "README.md", card(facts, hub_id(settings)).encode())
        seal(folder, facts)
        bundle = open_bundle(str(folder))
        if key is not None:
            sign_bundle(folder, key)
        publish_bundle(folder, settings.output, settings.force)
    return TrainResult(
        output=settings.output,
        labels=job.data.labels,
        rows=len(job.data.train),
        metrics=trained.examination.metrics,
        examples=trained.examination.examples,
        mismatches=trained.examination.mismatches,
        fingerprint=bundle.fingerprint,
        seconds=time.monotonic() - started,
    )


class Watch(NamedTuple):
    """Reports progress: a bar for a number of rows, and lines for people."""

    progress: Callable[[int], Progress]
    tell: Tell

    @contextlib.contextmanager
    def over(self, rows: int, context: TrainingContext) -> Iterator[TrainingContext]:
        """The context with a new bar."""
        bar = self.progress(rows)
        try:
            yield dataclasses.replace(context, progress=bar)
        finally:
            bar.close()


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """Settings, data, base model and hyperparameters of a training."""

    settings: TrainSettings
    data: TrainingData
    base: Bundle
    plan: Hyperparameters
    unlabelled: Unlabelled | None = None
    teaching: Teaching | None = None

    def fingerprint(self) -> str:
        """SHA-256 over everything that determines the bundle: settings, data, base model, device and versions."""
        given = {
            field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings)
        }
        for name in _HARMLESS:
            del given[name]
        given["base_model"] = self.settings.base_name
        return fingerprint(
            {
                "settings": {**given, "label_names": dict(self.settings.label_names)},
                "data": self.data.facts(),
                "teaching": None if self.teaching is None else self.teaching.facts(),
                **({} if self.unlabelled is None else {"unlabelled": self.unlabelled.facts}),
                "base": self.base.fingerprint,
                "device": resolve_device("auto"),
                "versions": versions(),
            }
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Trained:
    """The result of a job."""

    data: TrainingData
    plan: Hyperparameters
    fitted: Fitted
    examination: Examination
    temperature: float
    """What is still to be divided by: 1 where the weights have it."""
    hygiene: dict[str, Any]
    suspects: dict[str, Any] | None
    trials: tuple[Trial, ...]
    linear: dict[str, Any] | None
    """How it differs from a linear model on the same rows."""
    curve: dict[str, Any] | None
    """What more labels would bring, if that was asked for."""
    self_training: dict[str, Any] | None
    """What texts without labels brought, if there were any."""
    taught: dict[str, Any] | None
    """What teachers gave, if there are any."""


def _job(settings: TrainSettings, base: Bundle | None = None) -> _Job:
    base = base or open_base(settings)
    teachers = open_teachers(settings)
    data = load_data(settings, taught_goal(teachers))
    unlabelled = load_unlabelled(settings, data)
    teaching = teaching_of(settings, data, teachers, unlabelled)
    rows = len(data.train) + (len(teaching.texts) if teaching else 0)
    plan = settings.resolved(rows, pooling_of(base, settings), hidden_size_of(base))
    return _Job(
        settings,
        data,
        base,
        teaching.adapted(plan) if teaching else plan,
        None if teaching else unlabelled,
        teaching,
    )


def _precision(wanted: str) -> str:
    """``bf16`` if that is fast; never float16, whose gradients underflow without loss scaling."""
    if wanted != "auto":
        return wanted
    return "bf16" if "bf16" in faster_precisions(resolve_device("auto")) else "fp32"


def _finished(settings: TrainSettings, started: float) -> TrainResult | None:
    """The result, if this training has already published its bundle."""
    if not (settings.output / FACTS).exists():
        return None
    bundle = open_bundle(str(settings.output))
    job = _job(settings)
    if bundle.facts.get("training", {}).get("fingerprint") != job.fingerprint():
        return None
    return TrainResult(
        output=settings.output,
        labels=bundle.labels,
        rows=len(job.data.train),
        metrics=dict(bundle.facts["metrics"]),
        examples=(),
        mismatches=(),
        fingerprint=bundle.fingerprint,
        seconds=time.monotonic() - started,
        was_done=True,
    )


def _trained(job: _Job, context: TrainingContext, watch: Watch) -> _Trained:
    """Check the data, tune if asked to, fit, save to ``context.folder / _BUNDLE`` and examine the saved model."""
    lesson = job.teaching.lesson(job.data, watch.over, context) if job.teaching else None
    if lesson is not None:
        job = dataclasses.replace(job, data=lesson.data)
    data, plan = job.data, job.plan
    tokenized, n_tokens = tokenized_splits(job.base, data)
    hygiene = hygiene_of(data, n_tokens, job.base.max_length)
    tell_data(data, hygiene, context.tell)
    suspects = _suspects(job, tokenized["train"], context, watch) if job.settings.check_labels else None
    if lesson is None:
        tokenized["train"] = with_soft_labels(data, plan, tokenized["train"], context.tell)
    plan = dataclasses.replace(plan, soft_labels=tokenized["train"].soft is not None)
    job = dataclasses.replace(job, plan=plan)
    trials = _trials(job, tokenized["train"], context, watch) if job.settings.tune else ()
    if trials:
        best = best_trial(trials)
        plan = dataclasses.replace(
            plan, pooling=best.pooling, learning_rate=best.learning_rate, epochs=best.epochs
        )
    tell_plan(plan, job.base, context.tell)
    taught: dict[str, Any] | None = None
    if lesson is not None:
        tokenized["train"], taught = lesson.rows(job.base)
    tokenized["evaluation"] = tokenized["evaluation"].head(n_validation_rows(len(data.evaluation)))
    material = Material(job.base, data, job.settings, plan, watch.over)
    n_evaluation, selects = len(data.evaluation), plan.selects_epoch or job.unlabelled is not None
    n_selection = n_selection_rows(n_evaluation, selects)
    n_used = (
        n_evaluation if "evaluation" in data.untold else n_selection
    )  # a teacher's labels calibrate nothing
    both = tokenized["train"], tokenized["evaluation"]
    plain, made, self_training = _made(material, job.unlabelled, both, n_used, context)
    plan = dataclasses.replace(plan, soft_labels=plan.soft_labels and made is plain)
    fitted, saved, examination = made
    if lesson is not None and taught is not None:
        examination, taught = held_against_teachers(lesson, taught, made, n_selection, context)
    linear = compared_with_linear(data, examination, results_of(saved.head), job.settings.threshold)
    if linear is not None:
        context.tell(linear_line(data.goal.task, linear))
    curve = None
    if job.settings.learning_curve:
        curve = learning_curve(material, both, plain.examination, context)
    temperature = in_the_weights(saved, examination.temperature, context.tell)
    return _Trained(
        *(data, plan, fitted, examination, temperature, hygiene, suspects, tuple(trials)),
        *(linear, curve, self_training, taught),
    )


def _made(
    material: Material,
    unlabelled: Unlabelled | None,
    both: tuple[TokenizedRows, TokenizedRows],
    n_selection: int,
    context: TrainingContext,
) -> tuple[Attempt, Attempt, dict[str, Any] | None]:
    """The model of the rows alone, the better one with texts without labels, if there are any, and what these brought."""
    plan, data, folder, started = material.plan, material.data, context.folder / _BUNDLE, time.monotonic()
    sequences, rows = both[0].n_sequences, sum(len(each.labels) for each in both)
    rows = round(plan.epochs * sequences) if plan.trains_encoder else rows
    with material.over(rows + len(data.evaluation), context) as watched:
        plain = made = attempt(material, both, data.evaluation, n_selection, folder, watched)
    if unlabelled is None:
        return plain, made, None
    made, facts = self_trained(material, unlabelled, both, made, time.monotonic() - started, context)
    if made.saved.path != folder:
        remove_tree(folder)
        made.saved.path.rename(folder)
        made = made._replace(saved=open_saved(folder, material.base))
    return plain, made, facts


def _suspects(
    job: _Job, train: TokenizedRows, context: TrainingContext, watch: Watch
) -> dict[str, Any] | None:
    """Find and report training labels worth checking."""
    pooling = pooling_for_frozen_base(job.base, job.settings)
    plan = dataclasses.replace(job.plan, recipe="head", pooling=pooling, train_layers=None)
    with watch.over(len(train.labels), context) as watched:
        states = row_states(job.base, job.data.goal, plan, train, watched)
    if states is None:
        raise UsageError("--check-labels needs an encoder whose head looks at one token.")
    suspects = suspects_of(states, job.data.train, job.data.labels, plan.seed)
    if suspects is None:
        context.tell(
            "check-labels: a label has one training row only, so that nothing can be cross-validated"
        )
        return None
    context.tell(
        f"check-labels: {suspects['flagged']} of {suspects['labelled']} training labels are worth checking (cross-validated "
        f"accuracy {suspects['accuracy']:.4f} on the frozen base); all training rows are used all the same"
    )
    for row in suspects["rows"][:_TOLD_SUSPECTS]:
        context.tell(
            f"check-labels: {printable(row['at'])}: given {printable(row['given'])}, looks like "
            f"{printable(row['predicted'])}"
        )
    return suspects


def _trials(job: _Job, train: TokenizedRows, context: TrainingContext, watch: Watch) -> list[Trial]:
    """Search hyperparameters on a subset of the training rows."""
    limit, task, data = MOST_ROWS[job.plan.recipe], job.data.goal.task, job.data
    if len(train.labels) > limit:
        rows = stratified(strata_of(task, train.labels), limit / len(train.labels), job.plan.seed)
        train, data = train.select(rows, "tune"), dataclasses.replace(data, train=data.train.select(rows))
    held_out = stratified(strata_of(task, train.labels), HELD_OUT_SHARE, job.plan.seed)
    kept = sorted(set(range(len(train.labels))) - set(held_out))
    if not held_out:
        raise DataError("--tune needs two training rows or more of a label.")
    learned = with_soft_labels(data, job.plan, train.restricted_to(kept), least_recall=0.0)
    judged = dataclasses.replace(train, soft=None, subset=held_out)
    folder = context.folder / "tune"
    make_folder(folder)

    def attempt(number: int, plan: Hyperparameters) -> dict[str, float]:
        quiet = dataclasses.replace(context, tell=lambda _: None)
        with watch.over(len(train.labels), quiet) as watched:
            trial_folder = folder / str(number)
            make_folder(trial_folder)
            fitted = fit_rows(job.base, data.goal, plan, (learned, judged), watched, trial_folder)
            remove_tree(trial_folder)
            return fitted.curve[-1]

    plans = candidates(job.plan, job.settings, poolings_to_try(job.base, job.settings))
    context.tell(
        f"tune: {len(plans)} settings on {len(kept)} training rows, judged on {len(held_out)} others"
    )
    trials = search(plans, attempt, folder, context.tell)
    best = best_trial(trials)
    context.tell(
        f"tune: best is pooling {best.pooling}, learning rate {best.learning_rate:g}, {best.epochs:g} epochs"
    )
    return trials


def _silence() -> None:
    """Turn off the progress bars and advice of libraries."""
    import datasets

    datasets.disable_progress_bars()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _facts(job: _Job, trained: _Trained) -> dict[str, Any]:
    """The content of ``batchscore.json``."""
    settings, base, examination = job.settings, job.base, trained.examination
    name = BUILTIN_HUB_ID if settings.takes_builtin else settings.base_name
    data = {"source": settings.data, **trained.data.facts(), "hygiene": trained.hygiene}
    if settings.check_labels:
        data["suspects"] = trained.suspects
    return {
        **task_facts(trained.data.goal, examination),
        "max_length": base.max_length,
        "temperature": trained.temperature,
        "calibration_temperature": examination.temperature,
        "long_text": base.long_text,
        **({"takes_pairs": True, "missing_pair": base.missing_pair} if base.takes_pairs else {}),
        "canaries": examination.canaries,
        "calibration": calibration_texts(trained.data, examination.canaries["texts"]),
        "training": {
            "fingerprint": job.fingerprint(),
            "data": data,
            "settings": {
                **trained.plan.to_json(),
                "limit": settings.limit,
                "label_names": dict(settings.label_names),
                "group_column": settings.group_column,
            },
            "base_model": {"name": name, "revision": settings.revision, "fingerprint": base.fingerprint},
            **({"student": kept_layers(base, count)} if (count := settings.student_layers) else {}),
            **({"teaching": trained.taught} if trained.taught else {}),
            "precision": trained.fitted.precision,
            "best_epoch": trained.fitted.best_epoch,
            "curve": list(trained.fitted.curve),
            "linear_baseline": trained.linear,
            **({"learning_curve": trained.curve} if settings.learning_curve else {}),
            **({"self_training": trained.self_training} if trained.self_training else {}),
            "tuning": [dataclasses.asdict(trial) for trial in trained.trials],
            "versions": versions(),
        },
        "metrics": examination.metrics,
    }
