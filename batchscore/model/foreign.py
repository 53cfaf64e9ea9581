"""Folders that are no classifier in safetensors: each kind is refused with what it is and what to do with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import ModelError, printable
from batchscore.model.bundle_facts import json_file, json_object, json_value
from batchscore.model.weights import INDEX, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

ADAPTER = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_SCRIPTS = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib")
_LFS_POINTER = b"version https://git-lfs"
_POINTER_BYTES = 1024
"""A Git LFS pointer is smaller."""
_HEADS = {
    "ForTokenClassification": "it labels each token of a text",
    "ForQuestionAnswering": "it finds the answer to a question within a text",
    "ForMultipleChoice": "it chooses among several texts",
    "ForNextSentencePrediction": "it tells whether one sentence follows another",
    "ForMaskedLM": "it fills in masked words",
    "WithLMHead": "it predicts words",
    "LMHeadModel": "it predicts the next word",
    "ForCausalLM": "it predicts the next word",
    "ForConditionalGeneration": "it writes texts",
    "ForPreTraining": "it is a pre-trained encoder",
    "ForImageClassification": "it classifies images",
    "ForAudioClassification": "it classifies sounds",
    "Model": "it is an encoder without a classifier",
}
"""What an architecture does, by the end of its name."""
_CLASSIFIER = "ForSequenceClassification"
_SAVE_BOTH = (
    'python -c "from transformers import AutoModelForSequenceClassification as M, AutoTokenizer as T; '
    "M.from_pretrained('FOLDER').save_pretrained('NEW'); T.from_pretrained('FOLDER').save_pretrained('NEW')\""
)
_MERGE = (
    'python -c "from peft import AutoPeftModelForSequenceClassification as M; from transformers import AutoTokenizer as T; '
    "M.from_pretrained('FOLDER').merge_and_unload().save_pretrained('NEW'); "
    "T.from_pretrained('FOLDER').save_pretrained('NEW')\""
)
_UNMERGED = ("PROMPT", "PREFIX", "P_TUNING", "ADAPTION", "CPT")
"""Kinds of adapters that cannot be merged into the weights."""


def refuse_code(folder: Path, names: Iterable[str]) -> None:
    """Raise for what is no whole model in safetensors, or brings code of its own.

    Raises:
        ModelError: an adapter, other weights than safetensors, a pointer instead of weights, code.
    """
    names = sorted(names)
    if ADAPTER in names:  # transformers would fetch the base model named there
        raise ModelError(_of_adapter(folder))
    _refuse_other_weights(folder, names)
    scripts = [name for name in names if name.endswith(_SCRIPTS)]
    configs = [name for name in names if name.endswith("config.json")]
    for key in ("auto_map", "custom_pipelines"):
        scripts += [f"{key} in {name}" for name in configs if key in json_object(folder, name)]
    if scripts:
        raise ModelError(
            f"{printable(folder)} brings code of its own ({printable(scripts[0])}), which is never run. Use a model "
            "whose architecture is part of transformers."
        )


def _of_adapter(folder: Path) -> str:
    facts = json_object(folder, ADAPTER)
    kind, base = str(facts.get("peft_type", "LoRA")), printable(facts.get("base_model_name_or_path"))[:200]
    what = (
        f"{printable(folder)} holds only an adapter ({ADAPTER}: {printable(kind)[:40]}) of the model {base}. "
    )
    if kind.startswith(_UNMERGED):
        return f"{what}Adapters of this kind cannot be merged into a model, and are not supported."
    return f"{what}Merge it and save the whole model, where the package peft is, and give the new folder: {_MERGE}"


def _refuse_other_weights(folder: Path, names: Sequence[str]) -> None:
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(".safetensors")]
    if WEIGHTS in names or INDEX in names:
        for name in weights:
            _refuse_pointer(folder / name)
        return
    if weights:
        raise ModelError(
            f"{printable(folder)} has its weights in {printable(weights[0])}; transformers reads {WEIGHTS}. Rename the file if "
            "it is the whole model."
        )
    raise ModelError(f"{printable(folder)} has no safetensors weights, {_weights_instead(names)}")


def _weights_instead(names: Sequence[str]) -> str:
    """The kind of weights that a folder has instead of safetensors, and what to do."""

    def first(*ends: str) -> str | None:
        found = [name for name in names if name.endswith(ends)]
        return printable(found[0]) if found else None

    original = "Fetch the model that it was made from, or its safetensors."
    if (pickled := first("model.bin")) and "openvino" not in pickled:
        return _only_pickled(pickled)
    if model := first(".onnx"):
        return f"only a model exported for ONNX Runtime ({model}). {original}"
    if "openvino_model.xml" in {name.rpartition("/")[2] for name in names}:
        return f"only a model exported for OpenVINO (openvino_model.xml). {original}"
    if model := first(".gguf"):
        return f"only a model for llama.cpp ({model}). {original}"
    if model := first(".h5", "saved_model.pb", ".tflite"):
        return f"only those of TensorFlow ({model}), which transformers reads no longer. {original}"
    if model := first(".msgpack"):
        return f"only those of Flax ({model}), which transformers reads no longer. {original}"
    if pickled := first(*_PICKLES):
        return _only_pickled(pickled)
    return "none. Give the folder that model.save_pretrained(folder) wrote, and tokenizer.save_pretrained(folder)."


def _only_pickled(name: str) -> str:
    return (
        f"only pickled ones ({name}), which run code when they are loaded. If you trust where they are from, save model and "
        f"tokenizer anew, and give the new folder: {_SAVE_BOTH}"
    )


def _refuse_pointer(path: Path) -> None:
    if path.stat().st_size < _POINTER_BYTES and path.read_bytes().startswith(_LFS_POINTER):
        raise ModelError(
            f"{printable(path)} is a pointer of Git LFS, not the weights. Fetch them in that folder: git lfs pull"
        )


def refuse_other_models(folder: Path) -> None:
    """Raise for a folder that transformers would load as a classifier, but which is meant to be something else.

    Raises:
        ModelError: another head (``architectures`` of ``config.json``), quantised weights, or a pipeline of modules of
            sentence-transformers or SetFit.
    """
    config = json_file(folder, "config.json")
    for reason in (*_of_modules(folder), *_of_architectures(config), *_of_quantisation(config)):
        raise ModelError(f"{printable(folder)} {reason}")


def _of_architectures(config: Mapping[str, Any]) -> Iterator[str]:
    kinds = config.get("architectures") or []
    names = [str(kind) for kind in kinds] if isinstance(kinds, list) else [str(kinds)]
    if names and not any(name.endswith(_CLASSIFIER) for name in names):
        what = next(
            (what for end, what in _HEADS.items() if names[0].endswith(end)), "an architecture of its own"
        )
        yield (
            f"is no text classifier but {_article(printable(names[0])[:100])} (architectures in config.json): {what}. Give a "
            f"model that ends in {_CLASSIFIER}, or train one from it: batchscore-train --base-model FOLDER"
        )


def _article(name: str) -> str:
    return f"{'an' if re.match('[AEIO]', name) else 'a'} {name}"


def _of_quantisation(config: Mapping[str, Any]) -> Iterator[str]:
    found = config.get("quantization_config")
    if found:
        method = found.get("quant_method", "bitsandbytes") if isinstance(found, dict) else "?"
        yield (
            f"holds quantised weights ({printable(method)[:40]}), whose answers depend on kernels of another library. Use the "
            "model that was quantised; --precision chooses how it is computed here."
        )


def _of_modules(folder: Path) -> Iterator[str]:
    """SetFit and sentence-transformers list their modules; a CrossEncoder's only one is the classifier itself."""
    if (folder / "config_setfit.json").exists() or (folder / "model_head.pkl").exists():
        yield (
            "is a SetFit model: an encoder with a classifier of scikit-learn, pickled. Train the encoder's folder here: "
            "batchscore-train --base-model FOLDER"
        )
    if not (folder / "modules.json").exists():
        return
    modules = json_value(folder, "modules.json")
    kinds = [
        printable(each.get("type")).rpartition(".")[2][:40]
        for each in (modules if isinstance(modules, list) else [])
        if isinstance(each, dict)
    ]
    if len(kinds) > 1:
        yield (
            f"is a model of sentence-transformers ({', '.join(kinds)}), which makes vectors of texts, not labels. Train a "
            "classifier from it: batchscore-train --base-model FOLDER"
        )
