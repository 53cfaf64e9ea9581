"""When ``STAGING_FORMAT`` must be raised: what a run stages is held against what it staged before.

A run that was stopped goes on with the parts, plan and journal that are there, maybe after an upgrade. Where their form, or
what stands in them for the same input, is another one than before, the number has to be raised, so that old parts are
not mixed with new ones. The versions of batchscore, torch, transformers, tokenizers, numpy and pyarrow are in the
fingerprint of a run anyway.

*Covered:* reading, planning, tokenising, cutting, micro-batches (their rows, order and padding), temperature, softmax,
windows, label matching, and the names, types and values of staged parts: the same on every machine. *Covered on machines and
versions in ``KERNELS`` alone:* the float32 bits of our encoder; another processor has other kernels, whose last bit is
another, so the test is skipped there. *Not covered:* bfloat16, GPUs, int8, compiled code, and what transformers computes.

Logits here are multiples of 1/8, the same everywhere, and the softmax is computed in float64 and rounded once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import run_score
from numpy.typing import NDArray
from test_encoders import bert, distilbert, ragged
from test_scoring import FakeBackend

from batchscore.config import Allowance, ComputeSettings, ReadSettings
from batchscore.errors import InterruptedRunError
from batchscore.model import loading
from batchscore.model.backends.encoders import encoder_of
from batchscore.model.backends.packed import pack
from batchscore.model.backends.torch_backend import one_thread
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import MicroBatch
from batchscore.runs.scoring_parts import STAGING_FORMAT
from batchscore.system.journal import Journal, read_checked
from batchscore.system.storage import STAGING

GOLDEN_FORMAT = 10
GOLDEN: dict[str, dict[str, str]] = {
    "head": {
        "files": "0bf457182cdcb4f7",
        "plan.json": "8af2b00f69b8c45d",
        "journal.jsonl": "91d1f39f7d8ef04c",
        "rejects.jsonl": "87d0f1092501237b",
        "schemas of parts": "9cf1f870d486f616",
        "values of parts": "af2073371595c1ce",
        "micro-batches": "9e3128e17be18e33",
    },
    "head-tail": {
        "files": "0bf457182cdcb4f7",
        "plan.json": "8af2b00f69b8c45d",
        "journal.jsonl": "91d1f39f7d8ef04c",
        "rejects.jsonl": "87d0f1092501237b",
        "schemas of parts": "9cf1f870d486f616",
        "values of parts": "c535d47d8be6fecf",
        "micro-batches": "5c3c1f1e67f76f81",
    },
    "windows": {
        "files": "0bf457182cdcb4f7",
        "plan.json": "8af2b00f69b8c45d",
        "journal.jsonl": "895f698b2e74ebbf",
        "rejects.jsonl": "87d0f1092501237b",
        "schemas of parts": "9cf1f870d486f616",
        "values of parts": "c61c5726a7f7677f",
        "micro-batches": "3face6be469c6d70",
    },
}
WHAT_TO_DO = (
    "What a run stages is not what it was ({changed}). If that is meant: raise STAGING_FORMAT in batchscore/runs/scoring_parts.py, and "
    "put the new number and these values into tests/test_golden_bits.py:\nGOLDEN_FORMAT = {number}\nGOLDEN = {found}"
)
CSV = """id,text,label
1,"A wonderful film, from start to end.",pos
2,Terrible.,neg
3,,neg
4,"a ""quoted"" plot
over two lines",1
5,one cell,too,many
6,{long},unheard of
7,Terrible.,pos
8,   ,neg
9,Naïve café 日本 🎬,POSITIVE
""".format(long="never a dull moment in this plot " * 12)
JSONL = "".join(
    json.dumps({"review": "good " * (k * 7 % 45) + "film", "stars": k % 2, "extra": [k]}) + "\n"
    for k in range(11)
)


class ExactBackend(FakeBackend):
    """Logits are multiples of 1/8 that depend on every token and its place; it remembers its micro-batches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def logits(self, batch: MicroBatch) -> NDArray[np.float32]:
        ids, mask = batch.input_ids, batch.attention_mask
        self.seen.append([batch.sequence.tolist(), ids.tolist(), mask.tolist()])
        sums = (ids * mask * (1 + np.arange(ids.shape[1]) % 5)).sum(1)
        return np.stack([sums % 31 / 8 - 2, sums % 17 / 8 - 1], axis=1).astype(np.float32)


def staged_by(long_text: str, model_folder: Path, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Everything that a run had staged when it was stopped before its end, but times, paths and the bytes of Arrow files."""
    folder.mkdir()
    bundle = dataclasses.replace(open_bundle(str(model_folder)), temperature=1.25, max_length=32)
    backend = ExactBackend()

    def load(_: Any, wanted: ModelSettings, *__: Any) -> tuple[Model, dict[str, Any]]:
        inference = InferenceSettings(128, wanted.long_text)
        return Model(bundle, Tokenizer(bundle), backend, inference), {"max_batch_tokens": 128}

    def stopped(*_: Any) -> Any:
        raise InterruptedRunError("stopped", 2)

    patch.setattr(loading, "load_model", load)
    patch.setattr("batchscore.runs.run.Finish", stopped)
    (folder / "a.csv").write_bytes(CSV.encode())
    (folder / "b.jsonl").write_bytes(JSONL.encode())
    with pytest.raises(InterruptedRunError):
        run_score(
            [folder / "a.csv", folder / "b.jsonl"],
            model_folder,
            folder / "run",
            read=ReadSettings(part_rows=5),
            compute=ComputeSettings(workers=1),
            long_text=long_text,
            max_rejects=Allowance(count=1),
        )
    (staging,) = (path for path in (folder / "run" / STAGING).iterdir() if path.is_dir())
    parts = [content_of(path) for path in sorted((staging / "parts").iterdir())]
    journal = Journal(staging / "journal.jsonl")
    journal.close()
    return {
        "files": sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*")),
        "plan.json": without(read_checked(staging / "plan.json"), folder),
        "journal.jsonl": [timeless(entry) for entry in journal.entries if "deciding" not in entry],
        "rejects.jsonl": (staging / "rejects.jsonl").read_text(encoding="utf-8"),
        "schemas of parts": [part["schema"] for part in parts],
        "values of parts": [part["values"] for part in parts],
        "micro-batches": sorted(backend.seen),
    }


def content_of(path: Path) -> dict[str, Any]:
    """A part but for what the version of pyarrow decides: fields, metadata, and values with every bit of a number."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        fields = [[field.name, str(field.type), field.nullable] for field in reader.schema]
        told = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
        columns = reader.read_all().columns
        return {
            "schema": [fields, told],
            "values": [[exactly(value) for value in column] for column in columns],
        }


def exactly(scalar: Any) -> Any:
    value = scalar.as_py()
    return value.hex() if isinstance(value, float | bytes) else value


def without(plan: Any, folder: Path) -> Any:
    """A plan without the folder of its inputs, and without their times and inodes."""
    plan = dict(plan)
    assert len(plan.pop("noted")) == len(plan["plan"]["files"])
    return json.loads(json.dumps(plan).replace(str(folder), "FOLDER"))


def timeless(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the journal without what no two runs have in common; that it is there is kept."""
    entry = {**entry, **({"sha256": len(entry["sha256"])} if "sha256" in entry else {})}
    if "work" in entry:
        times = {key: type(value).__name__ for key, value in entry["work"].items() if "seconds" in key}
        entry["work"] = {**entry["work"], **times}
    return entry


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def test_what_is_staged_is_what_it_was_or_the_number_of_its_format_is_raised(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    tiny_model = make_model(whole=True)
    found: dict[str, dict[str, str]] = {}
    for long_text in ("head", "head-tail", "windows"):
        with pytest.MonkeyPatch.context() as patch:
            staged = staged_by(long_text, tiny_model, tmp_path / long_text, patch)
        found[long_text] = {name: digest(value) for name, value in staged.items()}
    changed = sorted(
        {name for way in found for name in found[way] if found[way][name] != GOLDEN.get(way, {}).get(name)}
    )
    told = WHAT_TO_DO.format(
        changed=", ".join(changed), number=max(STAGING_FORMAT, GOLDEN_FORMAT + 1), found=found
    )
    assert not changed, told
    assert STAGING_FORMAT == GOLDEN_FORMAT, "STAGING_FORMAT was changed though what is staged was not"


def test_one_unit_in_the_last_place_is_noticed() -> None:
    value = np.float32(0.7)
    nearest = np.nextafter(value, np.float32(1))
    assert digest(exactly(pa.scalar(value))) != digest(exactly(pa.scalar(nearest)))


KERNELS: dict[str, dict[str, str]] = {
    "torch 2.13.0+cpu, AVX2, AuthenticAMD": {
        "bert, torch": "ad8fc6d2ac64b37e",
        "bert, packed": "ad8fc6d2ac64b37e",
        "distilbert, torch": "09bc590468c4f123",
        "distilbert, packed": "09bc590468c4f123",
    },
    "torch 2.13.0+cpu, AVX512, GenuineIntel": {
        "bert, torch": "24fd3972234764cc",
        "bert, packed": "24fd3972234764cc",
        "distilbert, torch": "08b4d6d0687acf70",
        "distilbert, packed": "08b4d6d0687acf70",
    },
}
"""By versions and processor, digests of float32 logits of small models with fixed weights."""


def machine() -> str:
    """What decides the bits of a kernel, as far as it can be told: versions, instructions, and the maker of the processor."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    maker = next(
        (line.split(":")[1].strip() for line in facts.splitlines() if line.startswith("vendor_id")), "?"
    )
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {maker}"


def with_fixed_weights(model: Any) -> dict[str, torch.Tensor]:
    """Weights of a small model that no random generator had a hand in."""
    found = {}
    for number, (name, weight) in enumerate(sorted(model.state_dict().items())):
        values = (torch.arange(weight.numel(), dtype=torch.float64) * (number + 3) * 0.7).sin() / 2
        found[name] = values.reshape(weight.shape).float() + (1 if "orm.weight" in name else 0)
    return found


@pytest.mark.parametrize("make", [bert, distilbert])
def test_our_encoder_has_the_float32_bits_that_it_had(make: Any) -> None:
    model = make()
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    found = {}
    for way, ready in (
        ("torch", lambda encoder: encoder),
        ("packed", lambda encoder: pack(encoder, torch.float32)),
    ):
        encoder = encoder_of(with_fixed_weights(model), config, torch.float32)
        assert encoder is not None
        with one_thread(), torch.inference_mode():
            forward = ready(encoder)
            logits = [forward(ids, mask) for ids, mask in (ragged(True), ragged(False))]
        assert all(each.isfinite().all() for each in logits)
        found[f"{make.__name__}, {way}"] = hashlib.sha256(torch.cat(logits).numpy().tobytes()).hexdigest()[
            :16
        ]
    told = f"KERNELS[{machine()!r}] gets {found}"
    if machine() not in KERNELS:
        pytest.skip(f"no golden bits of this machine: {told}")
    golden = KERNELS[machine()]
    assert found == {name: golden[name] for name in found}, (
        f"Our encoder computes other bits than it did. If that is meant: raise STAGING_FORMAT in batchscore/runs/scoring_parts.py; {told}"
    )
