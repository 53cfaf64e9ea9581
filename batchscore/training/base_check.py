"""Whether a base model can be trained, found out before any data are read.

A classifier is made of it as training will make it, takes one step's loss and gradients, is saved, and answers probe texts in
padded batches as plain transformers answers each alone (:mod:`batchscore.model.probing`). So a base without a tokenizer,
without a padding token, or that answers one text another way each time costs seconds, not a training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import ModelError, UsageError, printable
from batchscore.model.backends import open_backend
from batchscore.model.backends.architectures import architecture_of
from batchscore.model.backends.plain import logits_of
from batchscore.model.bundle_facts import json_file
from batchscore.model.loading import DEFAULT_BATCH_TOKENS
from batchscore.model.probing import probe, probe_texts
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.system.storage import remove_tree
from batchscore.training.base_model import (
    hidden_size_of,
    load_classifier,
    load_tokenizer,
    open_base,
    pooling_of,
    save_classifier,
)
from batchscore.training.examination import open_saved
from batchscore.training.splits import Goal
from batchscore.training.teachers import refuse_missing

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle
    from batchscore.training.settings import TrainSettings

_GOAL = Goal(Task.SINGLE_LABEL, ("NO", "YES", "MAYBE"))
_LONGEST = 64
"""Tokens of the texts of the one step."""


def usable_base(settings: TrainSettings, folder: Path) -> tuple[Bundle, str]:
    """Open the base model and try it: :func:`checked_base`.

    Raises:
        ModelError, UsageError: as that, or there is no such teacher; names ``--base-model`` where a teacher is the base without having
            been named as that.
    """
    if settings.starts_from_teacher:
        refuse_missing(settings.teachers[0])
    try:
        base = open_base(settings)
        return base, checked_base(base, settings, folder)
    except (ModelError, UsageError) as error:
        if not settings.starts_from_teacher:
            raise
        raise type(error)(
            f"{error} This is the --teacher, whose layers are taken as no --base-model is given; --base-model builtin takes those of the "
            "built-in encoder."
        ) from error


def checked_base(base: Bundle, settings: TrainSettings, folder: Path) -> str:
    """Try the base model; returns how it bears padding. Uses ``folder`` and removes it.

    Architectures that our own code runs are known to be padded on the right, and are not probed.

    Raises:
        ModelError: it cannot be trained, or a classifier made of it cannot be scored as plain transformers does.
        UsageError: options that do not go with its architecture.
    """
    tokenizer = Tokenizer(base)
    saved_tokenizer = load_tokenizer(base)
    config = json_file(base.path, "config.json")
    is_ours = architecture_of(config.get("model_type")).classifier is not None
    if is_ours and settings.student_layers is None:
        return "right"
    plan = settings.resolved(1, pooling_of(base, settings), hidden_size_of(base))
    model = load_classifier(base, _GOAL, plan, "cpu")
    if is_ours:
        return "right"
    _refuse_untrainable(model, base, tokenizer)
    try:
        save_classifier(model, saved_tokenizer, base, folder)
        saved = open_saved(folder, base)
        backend = open_backend("transformers", saved, "cpu", "fp32")
        inference = InferenceSettings(DEFAULT_BATCH_TOKENS["cpu"], "head")
        return probe(Model(saved, Tokenizer(saved), backend, inference)).padding_mode
    except ModelError as error:
        reason = str(error).replace(str(folder), str(base.path))
        raise ModelError(f"--base-model {printable(base.path)} cannot be trained: {reason}") from error
    finally:
        remove_tree(folder)


def _refuse_untrainable(model: Any, base: Bundle, tokenizer: Tokenizer) -> None:
    """Raise unless a loss can be computed and its gradients reach weights that are to be trained."""
    import torch

    trained = [each for each in model.parameters() if each.requires_grad]
    short = tokenizer.cut_at(min(tokenizer.max_length, _LONGEST))
    ids = next(iter(short.encode([probe_texts(short)[1]], "head").input_ids))
    inputs = torch.from_numpy(ids.astype("int64"))[None]
    model.train()
    try:
        logits = logits_of(model(input_ids=inputs, attention_mask=torch.ones_like(inputs))).float()
        if logits.shape != (1, len(_GOAL.labels)):
            raise ValueError(f"logits of the shape {tuple(logits.shape)}")
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0]))
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [each.grad for each in trained if each.grad is not None]
        if not gradients or not all(bool(each.isfinite().all()) for each in (loss, *gradients)):
            raise ValueError("no finite gradients")
    except Exception as error:  # a model may raise anything
        raise ModelError(
            f"--base-model {printable(base.path)} cannot be trained: one step of it fails ({type(error).__name__}: "
            f"{printable(error)[:300]}). Use a model of another architecture."
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()
