"""Tiny models with several labels at once and with one output, and what plain transformers and numpy make of texts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_score
from crashing import KILLED, Fault, in_child
from numpy.typing import NDArray
from small_vocabulary import save_tokenizer

from batchscore.config import ReadSettings
from batchscore.model import loading
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import MicroBatch
from batchscore.runs import measuring
from batchscore.runs.folder import TIMED
from batchscore.system.storage import MANIFEST, files_below, sha256_of

LABELS = ("toxic", "insult", "threat")


def make_model(folder: Path, labels: Sequence[str], *, seed: int = 0, **config: Any) -> Path:
    """A BERT with random weights, two layers of 32; ``config`` is what its ``config.json`` has besides."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    found = BertConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=0.5,
        **config,
    )
    BertForSequenceClassification(found).save_pretrained(folder)
    return folder


def several_labels(folder: Path, labels: Sequence[str] = LABELS, seed: int = 0) -> Path:
    """A model that gives any number of labels."""
    return make_model(folder, labels, seed=seed, problem_type="multi_label_classification")


def one_number(folder: Path, seed: int = 0) -> Path:
    """A regression."""
    return make_model(folder, ["LABEL_0"], seed=seed, problem_type="regression")


def logits_of(model: Path, texts: Sequence[str], longest: int = 512) -> NDArray[np.float64]:
    """``[n, C]``: each text by itself, in float32, as plain transformers has it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    net = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            rows.append(net(**tokens).logits[0].double().numpy())
    return np.stack(rows)


def metrics_of(run: Path) -> dict[str, Any]:
    """``metrics.json`` of a run."""
    found: dict[str, Any] = json.loads((run / "metrics.json").read_bytes())
    return found


@contextlib.contextmanager
def without_page() -> Iterator[None]:
    """Runs write no charts meanwhile, which take most of the time of a small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "render_run", lambda *_, **__: "<p></p>")
        yield


class AtOnce:
    """A backend whose logits follow from a text's tokens."""

    name, device, precision = "fake", "cpu", "fp32"
    rows_are_alone = False

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        means = (batch.input_ids * batch.attention_mask).sum(1) / batch.attention_mask.sum(1)
        return np.stack([np.sin(means * (k + 1)) for k in range(self._outputs)], axis=1).astype(np.float32)

    def one_core_each(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return contextlib.nullcontext(lambda: None)

    def release(self) -> None:
        pass


@contextlib.contextmanager
def answering_at_once(folder: Path) -> Iterator[None]:
    """Runs take a model that is loaded already and computes nothing."""
    bundle = open_bundle(str(folder))
    model = Model(bundle, Tokenizer(bundle), AtOnce(len(bundle.labels)), InferenceSettings(256, "head"))

    def load(_: Any, wanted: ModelSettings, *__: Any) -> tuple[Model, dict[str, Any]]:
        return model.with_inference(thresholds=wanted.thresholds, below=wanted.below), {
            "backend": "fake",
            "precision": "fp32",
            "max_batch_tokens": 256,
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_model", load)
        yield


def contents(run: Path) -> dict[str, str]:
    """SHA-256 of every file of a run but those that hold times."""
    timed = {*TIMED, MANIFEST}
    return {name: sha256_of(run / name) for name in files_below(run) if name not in timed}


def check_kills(path: Path, model: Path, folder: Path, kills: int = 6, **options: Any) -> None:
    """Kill a run at steps spread over its length, each time a new one, and hold what it ends with against a whole one."""
    settings = {"read": ReadSettings(part_rows=7), **options}
    run_score(path, model, folder / "whole", **settings)
    whole = contents(folder / "whole")
    fault = Fault(folder / "counted", at=10**9)
    counter = folder / "steps"

    def counted() -> None:
        run_score(path, model, folder / "counted", **settings)
        counter.write_text(str(len(fault.steps)), encoding="utf-8")

    assert in_child(counted, fault) == 0
    steps = int(counter.read_text(encoding="utf-8"))
    for number in range(1, kills + 1):
        run = folder / f"killed {number}"
        at = number * steps // (kills + 1)
        assert in_child(lambda: run_score(path, model, run, **settings), Fault(run, at)) == KILLED  # noqa: B023
        assert not (run / "_SUCCESS").exists()
        run_score(path, model, run, **settings)
        assert contents(run) == whole, at
