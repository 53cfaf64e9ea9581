"""Our own way through BERT and DistilBERT, and our own way to their tokenizers, against transformers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from batchscore import samples
from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model.backends import open_backend
from batchscore.model.backends.encoders import load_encoder
from batchscore.model.bundle import Canaries, open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.tokenization import Tokenizer
from batchscore.system.importing import imports_ahead

SMALL: dict[str, Any] = {"vocab_size": 99, "initializer_range": 0.5, "num_labels": 3}


def bert(**options: Any) -> Any:
    return BertForSequenceClassification(
        BertConfig(
            hidden_size=24,
            num_hidden_layers=options.pop("layers", 3),
            num_attention_heads=4,
            intermediate_size=40,
            **SMALL,
            **options,
        )
    )


def distilbert(**options: Any) -> Any:
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            dim=24, n_layers=options.pop("layers", 3), n_heads=4, hidden_dim=40, **SMALL, **options
        )
    )


def ragged(padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 99, (5, 32), generator=generator)
    lengths = torch.tensor([32, 20, 9, 2, 1]) if padded else torch.full((5,), 32)
    mask = (torch.arange(32)[None] < lengths[:, None]).long()
    return ids * mask, mask


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (bert, {}),
        (bert, {"layers": 1}),
        (bert, {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
        (distilbert, {}),
        (distilbert, {"layers": 1}),
        (distilbert, {"activation": "relu", "sinusoidal_pos_embds": True}),
    ],
)
def test_logits_are_those_of_transformers(
    make: Any, options: dict[str, Any], padded: bool, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    make(**dict(options)).save_pretrained(tmp_path)
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    encoder = load_encoder(tmp_path, torch.float32, "cpu")
    assert encoder is not None
    ids, mask = ragged(padded)
    with torch.inference_mode():
        expected = reference(input_ids=ids, attention_mask=mask).logits
        found = encoder(ids, mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu_fast"},
        {"architectures": ["RobertaForSequenceClassification"]},
        {"architectures": None},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"num_hidden_layers": 2},
        {"num_hidden_layers": 4},
    ],
    ids=str,
)
def test_whatever_is_not_certain_is_left_to_transformers(change: dict[str, Any], tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    assert load_encoder(tmp_path, torch.float32, "cpu") is None


def test_a_tensor_too_many_or_too_few_is_left_to_transformers(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "bert.adapter.weight": torch.ones(2)}, path)
    assert load_encoder(tmp_path, torch.float32, "cpu") is None
    save_file({key: value for key, value in weights.items() if key != "classifier.bias"}, path)
    assert load_encoder(tmp_path, torch.float32, "cpu") is None


def test_a_plain_folder_is_left_to_transformers_and_a_bundle_is_not(
    tiny_model: Path, tiny_bundle: Path
) -> None:
    assert open_backend("torch", open_bundle(str(tiny_model)), "cpu", "fp32").name == "transformers"
    assert open_backend("torch", open_bundle(str(tiny_bundle)), "cpu", "fp32").name == "torch"


def test_token_ids_of_a_bundle_are_those_of_transformers(tiny_bundle: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    texts = [row["text"] for row in samples.rows() if row["text"]][:50]
    texts += ["", "Ünïcödé — “quotes” \u200b 中文 🎬", "[MASK] [SEP] a", "x" * 300]
    own, theirs = Tokenizer(bundle), Tokenizer(dataclasses.replace(bundle, canaries=None))
    assert own.pad_id == theirs.pad_id
    for one, other in zip(own.token_ids(texts), theirs.token_ids(texts), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_our_own_way_disagrees_transformers_is_taken(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(str(tiny_bundle))

    def wrong(ids: torch.Tensor, mask: torch.Tensor, types: Any = None) -> torch.Tensor:
        return torch.tensor([[3.0, -3.0]]).expand(len(ids), 2)

    monkeypatch.setattr("batchscore.model.backends.packed.pack", lambda *_: wrong)
    _, compute = load_model(bundle, ModelSettings(ComputeSettings(precision="fp32"), "head"), {})
    assert compute["backend"] == "transformers"
    with pytest.raises(ModelError, match="canaries"):
        load_model(bundle, ModelSettings(ComputeSettings(precision="fp32", backend="torch"), "head"), {})


def test_wrong_canaries_are_refused_by_both_ways(tiny_bundle: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    assert bundle.canaries is not None
    swapped: NDArray[np.float32] = bundle.canaries.probabilities[:, ::-1]
    wrong = dataclasses.replace(bundle, canaries=Canaries(bundle.canaries.texts, swapped))
    with pytest.raises(ModelError, match="does not answer as it did"):
        load_model(wrong, ModelSettings(ComputeSettings(precision="fp32"), "head"), {})


def test_a_bundle_is_scored_without_transformers(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\ngood film\nbad film\n")
    code = (
        "import sys; from batchscore.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' in sys.modules; assert 'transformers' not in sys.modules\n"
    )
    arguments = ["score", tmp_path / "in.csv", "--model", tiny_bundle, "--output", tmp_path / "run", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


WAITING = """
import sys
begun, go_on = sys.begun_and_go_on
begun.set()
assert go_on.wait(20)
done = True
"""


def test_modules_are_imported_by_a_thread_and_none_is_left_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "begun_and_go_on", (begun, go_on), raising=False)
    for name in ("ahead_one", "ahead_broken", "ahead_two"):
        body = "1 / 0" if "broken" in name else WAITING
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with imports_ahead() as want:
        want("ahead_one", "ahead_broken", "ahead_two")
        assert begun.wait(20)
        go_on.set()  # nobody has waited for it
        import ahead_two  # type: ignore[import-not-found]

        assert ahead_two.done
        want("ahead_one")
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert sys.modules["ahead_one"].done
    assert "ahead_broken" not in sys.modules
