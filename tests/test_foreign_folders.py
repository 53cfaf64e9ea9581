"""Folders of other kinds are refused, each with what it is and what to do; nothing is scored as what it is not."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import run_score, seal_bundle
from safetensors.torch import load_file, save_file
from test_heads import edit

from batchscore.config import ComputeSettings, ReadSettings
from batchscore.errors import DataError, ModelError
from batchscore.model import loading
from batchscore.model.backends import torch_backend
from batchscore.model.bundle import open_bundle
from batchscore.model.exporting import export_int8
from batchscore.model.loading import Models, ModelSettings, load_model
from batchscore.runs.result import RunResult

WEIGHTS = "model.safetensors"


@pytest.fixture
def plain(make_model: Callable[..., Path]) -> Path:
    return make_model()


def instead(name: str) -> Callable[[Path], Any]:
    """Other weights instead of safetensors."""

    def write(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")

    return write


def put(name: str, value: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(json.dumps(value))


def config(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: edit(folder / "config.json", **changes)


def adapter(kind: str) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
        (folder / "config.json").unlink()
        put("adapter_config.json", {"peft_type": kind, "base_model_name_or_path": "roberta-base"})(folder)

    return write


def sharded(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    put("model.safetensors.index.json", {"weight_map": places})(folder)


def below(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / WEIGHTS).rename(folder / "sub" / WEIGHTS)


def spoiled(value: float) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        weights["bert.encoder.layer.1.output.dense.weight"][3, 5] = value
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return write


def modules(*kinds: str) -> Callable[[Path], Any]:
    found = [{"idx": k, "type": f"sentence_transformers.models.{kind}"} for k, kind in enumerate(kinds)]
    return put("modules.json", found)


OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "LoRA": (
        adapter("LORA"),
        r"only an adapter .*LORA.* of the model roberta-base.*merge_and_unload\(\)\.save_pretr",
    ),
    "prompt tuning": (adapter("PROMPT_TUNING"), "cannot be merged"),
    "pickled": (
        instead("pytorch_model.bin"),
        r"only pickled ones \(pytorch_model\.bin\).*T\.from_pretrained\('FOLDER'\)",
    ),
    "ONNX": (instead("onnx/model.onnx"), r"exported for ONNX Runtime \(onnx/model\.onnx\)"),
    "OpenVINO": (
        lambda f: (instead("openvino_model.xml")(f), (f / "openvino_model.bin").write_bytes(b"x")),
        r"exported for OpenVINO",
    ),
    "GGUF": (instead("model-q4.gguf"), r"llama\.cpp \(model-q4\.gguf\)"),
    "TensorFlow": (instead("tf_model.h5"), r"TensorFlow \(tf_model\.h5\)"),
    "Flax": (instead("flax_model.msgpack"), r"Flax \(flax_model\.msgpack\)"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no safetensors weights, none"),
    "weights below": (
        lambda f: (f / WEIGHTS).rename(Path(tempfile.mkdtemp(dir=f)) / WEIGHTS),
        "no safetensors weights",
    ),
    "weights of another name": (
        lambda f: (f / WEIGHTS).rename(f / "weights.safetensors"),
        r"in weights\.safetensors; transformers reads model\.safetensors",
    ),
    "a missing shard": (sharded, r"model-00002-of-00002\.safetensors, named in .*, is missing"),
    "an index of nothing": (
        lambda f: ((f / WEIGHTS).rename(f / "x.safetensors"), put("model.safetensors.index.json", {})(f)),
        "has no weight_map",
    ),
    "a pointer": (
        lambda f: (f / WEIGHTS).write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        ),
        "is a pointer of Git LFS.*git lfs pull",
    ),
    "code": (config(auto_map={"AutoModel": "m.M"}), "brings code of its own"),
    "tokens": (
        config(architectures=["LlamaForTokenClassification"]),
        "a LlamaForTokenClassification .*each token",
    ),
    "questions": (config(architectures=["BertForQuestionAnswering"]), "answer to a question"),
    "masks": (config(architectures=["AlbertForMaskedLM"]), "an AlbertForMaskedLM .*masked words"),
    "words": (config(architectures=["GPT2LMHeadModel"]), "predicts the next word"),
    "an encoder": (config(architectures=["BertModel"]), "encoder without a classifier.*batchscore-train"),
    "a class of its own": (config(architectures=["ToxicBert"]), "ToxicBert .*an architecture of its own"),
    "bitsandbytes": (config(quantization_config={"load_in_8bit": True}), "quantised weights .bitsandbytes"),
    "GPTQ": (config(quantization_config={"quant_method": "gptq"}), r"quantised weights \(gptq\)"),
    "SetFit": (put("config_setfit.json", {}), "is a SetFit model"),
    "sentence-transformers": (
        modules("Transformer", "Pooling"),
        r"\(Transformer, Pooling\), which makes vectors",
    ),
    "NaN": (
        spoiled(float("nan")),
        r"1 of its weights hold NaN .*bert\.encoder\.layer\.1\.output\.dense\.weight",
    ),
    "infinite": (spoiled(float("inf")), "hold NaN or infinite"),
    "other shapes": (config(hidden_size=64), r"the weight \S+ is \[\d+"),
    "missing weights": (config(num_hidden_layers=3), "weights of the classifier are not in the folder"),
}


@pytest.mark.parametrize(("make", "message"), OTHERS.values(), ids=OTHERS)
def test_a_folder_of_another_kind_is_refused(make: Callable[[Path], Any], message: str, plain: Path) -> None:
    make(plain)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(
            Models().open(str(plain), None), ModelSettings(ComputeSettings(precision="fp32"), "head"), {}
        )
    assert caught.value.exit_code == 78


def test_export_of_a_plain_folder_says_how_it_becomes_a_bundle(plain: Path) -> None:
    with pytest.raises(ModelError, match=r"batchscore adopt .* --output BUNDLE.*batchscore-train"):
        export_int8(str(plain))


# ------------------------------------------------------------------------------------------------------ labels and rows


def test_labels_without_names_are_not_compared_unless_it_is_said_what_they_mean(
    make_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, data = make_model(("LABEL_0", "LABEL_1")), tmp_path / "in.parquet"
    pd.DataFrame({"text": ["good", "bad"], "label": [1, 0]}).to_parquet(data)
    with pytest.raises(
        DataError, match=r"--label-column label cannot be compared.*--label-map ids.*--no-labels"
    ):
        run_score(data, folder, tmp_path / "asked", read=ReadSettings(label_column="label"))
    run_score(data, folder, tmp_path / "run")
    assert "given labels are not looked at" in caplog.text
    assert "--label-map 1=LABEL_1" in caplog.text
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_bytes())
    assert "--label-map" in metrics["unused_labels"]
    assert "given labels are not looked at" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    said = run_score(
        data, folder, tmp_path / "said", read=ReadSettings(label_column="label"), label_map={"": "ids"}
    )
    assert "unused_labels" not in said.metrics
    assert said.metrics["quality"] is not None


@pytest.mark.parametrize(
    ("reasons", "advice"),
    [
        (["out of memory: 1", "out of memory: 2"], r"Free memory.*score again with --force"),
        (["out of memory: 1", "RuntimeError: x"], r"in the same way they would fail again"),
        (["RuntimeError: x"], r"in the same way they would fail again"),
    ],
)
def test_failed_rows_are_not_sent_the_same_way_again(reasons: list[str], advice: str, tmp_path: Path) -> None:
    metrics = {"counts": {"failed": len(reasons)}, "failed_rows": [{"reason": reason} for reason in reasons]}
    with pytest.raises(DataError, match=advice):
        RunResult(tmp_path, "scored", 2, 0, metrics, 1.0).outcome()


# ------------------------------------------------------------------------------------- a lower precision that raises


@pytest.mark.parametrize("where", ["loading", "forward"])
def test_a_lower_precision_that_raises_gives_way_to_float32(
    where: str, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of DeBERTa, XLNet and BigBird have."""
    bundle = open_bundle(str(seal_bundle(make_model())))
    opened = torch_backend._plain

    def plain(bundle: Any, dtype: torch.dtype, device: str, *, fresh: bool) -> Any:
        if dtype == torch.float32:
            return opened(bundle, dtype, device, fresh=fresh)
        if where == "loading":
            raise ModelError("weights too large for this precision")

        def forward(*_: Any, **__: Any) -> Any:
            raise RuntimeError("expected scalar type Float but found BFloat16")

        return forward

    monkeypatch.setattr(torch_backend, "_plain", plain)
    monkeypatch.setattr(torch_backend, "_encoder", lambda *_: None)

    def precisions(self: Any, **_: Any) -> list[str]:
        return ["bf16", "fp32"] if self.precision == "auto" else [self.precision]

    monkeypatch.setattr(loading._Loading, "_precisions", precisions)
    _, compute = load_model(bundle, ModelSettings(ComputeSettings(), "head"), {})
    assert (compute["backend"], compute["precision"]) == ("transformers", "fp32")
    with pytest.raises(ModelError, match=r"this precision|BFloat16"):
        load_model(
            bundle, ModelSettings(ComputeSettings(precision="bf16", backend="transformers"), "head"), {}
        )
