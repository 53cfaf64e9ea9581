"""The whole training on one screen: data, base model, fit, save, examine, seal, rename."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore import __version__
from batchscore.backends.torch_backend import resolve_device
from batchscore.bundle import open_bundle, seal
from batchscore.errors import printable
from batchscore.storage import write_bytes
from batchscore.tokenization import Tokenizer
from batchscore.training.base_model import (
    BUILTIN,
    BUILTIN_HUB_ID,
    load_classifier,
    load_tokenizer,
    open_base,
    pooling_of,
    save_classifier,
)
from batchscore.training.card import card
from batchscore.training.data import Split, TrainingData, load_data
from batchscore.training.examination import Examination, Example, examine, open_saved, rows_to_choose
from batchscore.training.fitting import Fitted, Progress, Tell, encode, fit
from batchscore.training.workplace import put_in_place, workplace, writing

if TYPE_CHECKING:
    from batchscore.bundle import Bundle
    from batchscore.training.settings import Hyperparameters, TrainSettings

_BUNDLE = "bundle"
_PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training made."""

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


def train(
    settings: TrainSettings,
    progress: Callable[[int], Progress],
    tell: Tell = lambda _: None,
) -> TrainResult:
    """Train a classifier and write its bundle to ``settings.output``, whole or not at all.

    ``progress`` is given the number of rows to come; ``tell`` gets lines for people.

    Raises:
        BatchscoreError: of the kind that says what was wrong: data, base model, output, storage.
    """
    started = time.monotonic()
    settings = dataclasses.replace(settings, output=Path(os.path.realpath(settings.output)))
    _silence()
    with workplace(settings.output, settings.force) as work:
        data = load_data(settings)
        base = open_base(settings)
        plan = settings.resolved(len(data.train), pooling_of(base, settings))
        _tell_data(data, plan, base, tell)
        bar = progress(round(plan.epochs * len(data.train)) + len(data.evaluation))
        try:
            fitted, examination = _build(data, base, plan, work, (bar, tell))
        finally:
            bar.close()
        facts = _facts(settings, plan, data, base, fitted, examination)
        facts["training"]["seconds"] = round(time.monotonic() - started, 1)
        folder = work / _BUNDLE
        write_bytes(folder / "README.md", card(facts, _hub_id(settings)).encode())
        seal(folder, facts)
        bundle = open_bundle(str(folder))
        put_in_place(folder, settings.output, settings.force)
    return TrainResult(
        output=settings.output,
        labels=data.labels,
        rows=len(data.train),
        metrics=examination.metrics,
        examples=examination.examples,
        mismatches=examination.mismatches,
        fingerprint=bundle.fingerprint,
        seconds=time.monotonic() - started,
    )


def _build(
    data: TrainingData, base: Bundle, plan: Hyperparameters, work: Path, watch: tuple[Progress, Tell]
) -> tuple[Fitted, Examination]:
    """Fit, save to ``work / _BUNDLE`` and examine what was saved."""
    device = resolve_device("auto")
    with writing(work):
        fitted = _fit(data, base, plan, (work / "checkpoints", device), watch)
        save_classifier(fitted.model, load_tokenizer(base), base, work / _BUNDLE)
    return fitted, examine(open_saved(work / _BUNDLE, base), data.evaluation, device, watch[0])


def _silence() -> None:
    """No bars and no advice from libraries: what happens is told once, by us."""
    import datasets

    datasets.disable_progress_bars()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _tell_data(data: TrainingData, plan: Hyperparameters, base: Bundle, tell: Tell) -> None:
    for split, reasons in data.left_out.items():
        for reason, count in reasons.items():
            tell(f"left out of the {split} rows: {count} with {reason.replace('_', ' ')}")
    tell(
        f"{len(data.train)} rows to train on, {len(data.evaluation)} to evaluate on ({data.source}); labels "
        f"{printable(', '.join(data.labels))}; recipe {plan.recipe}, pooling {plan.pooling}: {plan.epochs:g} epochs "
        f"at {plan.learning_rate:g}, batches of {plan.batch_size}, texts cut at {base.max_length} tokens"
    )


def _fit(
    data: TrainingData,
    base: Bundle,
    plan: Hyperparameters,
    where: tuple[Path, str],
    watch: tuple[Progress, Tell],
) -> Fitted:
    from transformers import set_seed

    ids = Tokenizer(base)
    chosen = rows_to_choose(len(data.evaluation))
    choosing = Split(data.evaluation.texts[:chosen], data.evaluation.labels[:chosen])
    splits = encode(data.train, ids, base.long_text), encode(choosing, ids, base.long_text)
    set_seed(plan.seed)  # before the new head gets its random weights
    model = load_classifier(base, data.labels, plan, where[1])
    return fit(model, load_tokenizer(base), splits, plan, where, watch)


def _facts(
    settings: TrainSettings,
    plan: Hyperparameters,
    data: TrainingData,
    base: Bundle,
    fitted: Fitted,
    examination: Examination,
) -> dict[str, Any]:
    """What ``batchscore.json`` holds."""
    name = BUILTIN_HUB_ID if settings.base_model == BUILTIN else settings.base_model
    return {
        "labels": list(data.labels),
        "max_length": base.max_length,
        "temperature": examination.temperature,
        "long_text": base.long_text,
        "canaries": examination.canaries,
        "calibration": _calibration(data, examination.canaries["texts"]),
        "training": {
            "data": {"source": settings.data, **data.facts()},
            "settings": {
                **plan.to_json(),
                "limit": settings.limit,
                "label_names": dict(settings.label_names),
            },
            "base_model": {"name": name, "revision": settings.revision, "fingerprint": base.fingerprint},
            "precision": fitted.precision,
            "best_epoch": fitted.best_epoch,
            "curve": list(fitted.curve),
            "versions": {
                "batchscore": __version__,
                "python": platform.python_version(),
                **{package: importlib.metadata.version(package) for package in _PACKAGES},
            },
        },
        "metrics": examination.metrics,
    }


def _calibration(data: TrainingData, canaries: Sequence[str]) -> dict[str, list[str]]:
    """Texts for ``batchscore export``: training rows to calibrate on, evaluation rows to compare on, spread evenly."""
    held_out = [text for text in dict.fromkeys(data.evaluation.texts) if text not in set(canaries)]
    return {"texts": _spread(list(dict.fromkeys(data.train.texts)), 128), "held_out": _spread(held_out, 200)}


def _spread(texts: list[str], n: int) -> list[str]:
    return [texts[k * len(texts) // n] for k in range(n)] if len(texts) > n else texts


def _hub_id(settings: TrainSettings) -> str | None:
    """The base model as the hub calls it; ``None`` for a local folder."""
    if settings.base_model == BUILTIN:
        return BUILTIN_HUB_ID
    return None if Path(settings.base_model).is_dir() else settings.base_model
