"""Every file that a model is loaded from is in its own folder and hashed; headers and settings that lie are refused."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.weights import INDEX, WEIGHTS

_OPENED = 0x20
_SETTINGS = ModelSettings(ComputeSettings(device="cpu", precision="fp32"), "head")


class Opened:
    """The files that are opened in some folders, by whatever language: what ``inotify`` of Linux tells."""

    def __init__(self, *folders: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        self._folders = {
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _OPENED): folder
            for folder in folders
        }

    def files(self) -> set[Path]:
        """Those opened since the last call."""
        found: set[Path] = set()
        try:
            while content := os.read(self._descriptor, 2**16):
                while content:
                    watch, _, _, size = struct.unpack("iIII", content[:16])
                    name = os.fsdecode(content[16 : 16 + size].rstrip(b"\0"))
                    found |= {self._folders[watch] / name} if name else set()
                    content = content[16 + size :]
        except BlockingIOError:
            return {path for path in found if path.is_file()}
        return found

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def plain(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return shutil.copytree(tiny_model, tmp_path / "models" / "plain")


@pytest.fixture(autouse=True)
def _in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHSCORE_CACHE", "off")


def edit(path: Path, **changes: Any) -> None:
    facts = json.loads(path.read_bytes()) if path.exists() else {}
    path.write_text(json.dumps(facts | changes), encoding="utf-8")


@pytest.mark.usefixtures("_no_cache")
@pytest.mark.parametrize("kind", ["plain", "bundle", "plain transformers"])
def test_every_file_that_is_opened_to_load_a_model_is_hashed(
    kind: str, tiny_model: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_bundle if kind == "bundle" else tiny_model, tmp_path / "models" / "m")
    beside, here = folder.parent, tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in [path.name for path in folder.iterdir()]:  # what a library could take instead
        for other in (beside, here):
            (other / name).write_bytes(b"{}")
    backend = "transformers" if kind == "plain transformers" else "auto"
    settings = ModelSettings(ComputeSettings(device="cpu", precision="fp32", backend=backend), "head")
    opened = Opened(folder, beside, here)
    try:
        bundle = open_bundle(str(folder))
        hashing = opened.files()
        load_model(bundle, settings, {})
        loading = opened.files()
    finally:
        opened.close()
    assert {path.parent for path in loading} == {folder}
    assert folder / WEIGHTS in loading
    assert {path.name for path in loading} <= bundle.files.hashes.keys()
    assert hashing == {folder / name for name in bundle.files.hashes}


def shards(folder: Path) -> dict[str, str]:
    """Divide the weights into two files with an index; returns the index."""
    from safetensors.torch import load_file, save_file

    tensors: Any = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    index = {name: f"model-{1 + place % 2}.safetensors" for place, name in enumerate(names)}
    for file in set(index.values()):
        save_file({n: tensors[n] for n in names if index[n] == file}, folder / file, {"format": "pt"})
    edit(folder / INDEX, metadata={}, weight_map=index)
    return index


def named(name: str) -> Callable[[Path, dict[str, str]], None]:
    def change(folder: Path, index: dict[str, str]) -> None:
        place = os.path.join(folder, name)  # noqa: PTH118 - an absolute name wins
        shutil.move(folder / "model-2.safetensors", place)
        wanted = {key: name if file == "model-2.safetensors" else file for key, file in index.items()}
        edit(folder / INDEX, weight_map=wanted)

    return change


def twice(folder: Path, index: dict[str, str]) -> None:
    shutil.copy(folder / "model-2.safetensors", folder / "model-3.safetensors")
    last = max(index)
    edit(folder / INDEX, weight_map={**index, last: "model-3.safetensors"})


def linked(folder: Path, index: dict[str, str]) -> None:
    shutil.move(folder / "model-2.safetensors", folder.parent)
    (folder / "model-2.safetensors").symlink_to(folder.parent / "model-2.safetensors")


SHARDS: dict[str, tuple[Callable[[Path, dict[str, str]], Any], str]] = {
    "above": (named("../x.safetensors"), "is not among the files of the folder itself"),
    "absolute": (named("/tmp/absolute-of-a-test.safetensors"), "is not among the files of the folder itself"),
    "a detour": (named("../plain/x.safetensors"), "is not among the files of the folder itself"),
    "a link": (linked, "is a link"),
    "missing": (lambda folder, _: (folder / "model-2.safetensors").unlink(), "named in .*, is missing"),
    "the same tensor in two": (twice, "is in model-3.safetensors and in another file"),
    "a tensor that is not there": (
        lambda folder, index: edit(folder / INDEX, weight_map={**index, "x": "model-1.safetensors"}),
        "has the tensor x in model-1.safetensors, where it is not",
    ),
    "no names": (lambda folder, _: edit(folder / INDEX, weight_map={"a": 1}), "no weight_map of file names"),
}


@pytest.mark.parametrize(("change", "message"), SHARDS.values(), ids=SHARDS)
def test_weights_come_from_the_folder_alone(
    change: Callable[[Path, dict[str, str]], Any], message: str, plain: Path
) -> None:
    index = shards(plain)
    opened = open_bundle(str(plain))
    assert {"model-1.safetensors", "model-2.safetensors", INDEX} <= opened.files.hashes.keys()
    try:
        change(plain, index)
        with pytest.raises(ModelError, match=message):
            open_bundle(str(plain))
    finally:
        Path("/tmp/absolute-of-a-test.safetensors").unlink(missing_ok=True)


def test_links_of_the_hub_cache_stay_good(plain: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / ("0" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(plain.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    opened = open_bundle(str(snapshot))
    assert opened.fingerprint == open_bundle(str(plain)).fingerprint
    opened.refuse_changed()


NAMED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a vocabulary above": ("tokenizer_config.json", {"vocab_file": "../vocab.txt"}, "vocab_file leads to"),
    "merges where we are": ("tokenizer_config.json", {"merges_file": "merges.txt"}, "merges_file leads to"),
    "a tokenizer of a version": (
        "tokenizer_config.json",
        {"fast_tokenizer_files": ["tokenizer.4.0.0.json", "../vocab.txt"]},
        "fast_tokenizer_files leads to",
    ),
    "deep": (
        "config.json",
        {"text_config": {"x": [{"vocab_file": "/etc/passwd"}]}},
        "vocab_file leads to /etc/passwd",
    ),
    "other weights": ("config.json", {"transformers_weights": "../x.safetensors"}, "names other weights"),
    "a kernel": ("config.json", {"attn_implementation": "someone/kernel"}, "names code to be fetched"),
    "code": ("config.json", {"auto_map": {"AutoModel": "x.Y"}}, "brings code of its own"),
    "an adapter": ("adapter_config.json", {"base_model_name_or_path": "../base"}, "holds only an adapter"),
}


@pytest.mark.parametrize(("file", "changes", "message"), NAMED.values(), ids=NAMED)
def test_settings_that_lead_elsewhere_are_refused(
    file: str,
    changes: dict[str, Any],
    message: str,
    plain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (plain.parent / "vocab.txt").write_text("[UNK]\n")
    (tmp_path / "here" / "merges.txt").write_text("a b\n")
    monkeypatch.chdir(tmp_path / "here")
    edit(plain / file, **changes)
    with pytest.raises(ModelError, match=message):
        open_bundle(str(plain))


def test_paths_of_another_machine_in_settings_are_no_fault(plain: Path) -> None:
    left = {
        "special_tokens_map_file": "/root/.cache/none.json",
        "name_or_path": "/tmp",
        "tokenizer_file": None,
    }
    edit(plain / "tokenizer_config.json", **left, vocab_file="vocab.txt")
    edit(plain / "config.json", _name_or_path=str(plain.parent))
    assert open_bundle(str(plain))


# ---------------------------------------------------------------------------------------- headers and promised sizes


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(content[8 : 8 + length])
        change(facts)
        new = json.dumps(facts).encode()
        path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])

    return write


def start(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content + path.read_bytes()[len(content) :])

    return write


def tensor(**changes: Any) -> Callable[[Path], None]:
    return header(lambda facts: facts["classifier.bias"].update(changes))


HEADERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "longer than the file": (start((10**9).to_bytes(8, "little")), "said to have 1000000000 bytes"),
    "2 ** 64 - 1": (start(b"\xff" * 8), "said to have"),
    "empty": (lambda path: path.write_bytes(b""), "said to have 0 bytes, the file has 0"),
    "no JSON": (start(b"\x08" + b"\0" * 7 + b"{{{{{{{{"), "cannot be meant"),
    "a list": (lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"), "it is no object"),
    "a negative shape": (tensor(shape=[-2]), r"has the shape \[-2\]"),
    "a shape of 10 ** 30": (tensor(shape=[10**30]), "not a whole number"),
    "a type of ours": (tensor(dtype="F99"), "unknown type F99"),
    "a number for a type": (tensor(dtype=7), "not a text"),
    "overlapping": (tensor(data_offsets=[0, 8]), "begins at"),
    "backwards": (tensor(data_offsets=[8, 0]), "which its shape does not need"),
    "beyond the file": (tensor(data_offsets=[2**40, 2**40 + 8]), "begins at"),
    "no offsets": (tensor(data_offsets=[]), "has the shape"),
    "twice the same": (
        lambda path: path.write_bytes((len(b'{"a":1,"a":2}')).to_bytes(8, "little") + b'{"a":1,"a":2}'),
        "it has a twice",
    ),
    "more behind it": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "the file has"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size - 1), "the file has"),
}


@pytest.mark.parametrize(("spoil", "message"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_about_its_file_is_refused(
    spoil: Callable[[Path], Any], message: str, plain: Path
) -> None:
    spoil(plain / WEIGHTS)
    with pytest.raises(ModelError, match=message):
        open_bundle(str(plain))


PROMISES: dict[str, dict[str, Any]] = {
    "layers": {"num_hidden_layers": 10**9},
    "layers by another name": {"n_layers": 10**9},
    "layers further in": {"text_config": {"num_layers": 10**9}},
    "a width": {"hidden_size": 2 * 10**9},
    "a vocabulary": {"vocab_size": 10**9},
    "positions": {"max_position_embeddings": 10**9},
    "an inner width": {"intermediate_size": 10**12},
    "labels": {"num_labels": 10**9, "id2label": None, "label2id": None},
}


@pytest.mark.usefixtures("_no_cache")
@pytest.mark.parametrize("changes", PROMISES.values(), ids=PROMISES)
def test_what_is_promised_by_the_billion_is_refused_before_it_is_built(
    changes: dict[str, Any], plain: Path
) -> None:
    import resource

    edit(plain / "config.json", **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ModelError, match=r"asks for a model of|the weights are only|not a number of labels|cannot be loaded"
    ):
        load_model(open_bundle(str(plain)), _SETTINGS, {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.usefixtures("_no_cache")
@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "new.txt"])
def test_a_file_that_changes_while_the_model_is_loaded_is_noticed(name: str, plain: Path) -> None:
    bundle = open_bundle(str(plain))
    other = plain.parent / "other"
    other.write_bytes((plain / name).read_bytes() if (plain / name).exists() else b"")
    other.replace(plain / name)
    with pytest.raises(ModelError, match="was changed while the model was loaded"):
        load_model(bundle, _SETTINGS, {})
