"""A plain folder is as fast as a bundle: plain transformers answers once, and what scores is held against that each night."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_score
from test_probing import alone
from test_scoring import rows_of

from batchscore import samples
from batchscore.config import ComputeSettings
from batchscore.errors import ModelError
from batchscore.model import loading, references
from batchscore.model.backends import open_backend, packed, torch_backend
from batchscore.model.bundle import Bundle, open_bundle
from batchscore.model.loading import ModelSettings, load_model
from batchscore.model.references import RowsToScore, public_texts
from batchscore.model.scoring import Model, score_part
from batchscore.model.tokenization import Tokenizer
from batchscore.system import cache

TEXTS = [row["text"] for row in samples.rows() if (row["text"] or "").strip()][::60]
OWN = tuple(f"this run alone says zebra number {k}" for k in range(300))
ZEBRA = 29145
"""The token of a word that no public text has."""


@pytest.fixture(scope="session")
def tiny_model(make_model: Callable[..., Path]) -> Path:
    """A plain folder whose tokenizer has a word that the probes do not have."""
    return make_model(whole=True)


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache that is empty at first."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def filled(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that a first night filled."""
    folder = tmp_path_factory.mktemp("cache") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.VARIABLE, str(folder))
        load(tiny_model)
    return folder


@pytest.fixture
def second_night(filled: Path, nights: Path) -> Path:
    """The folder of a cache that a first night filled."""
    shutil.copytree(filled, nights)
    return nights


@pytest.fixture
def without_transformers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after which transformers may not run a model."""
    opened = open_backend

    def refuse(name: str, *rest: Any) -> Any:
        assert name in {"torch", "auto"}
        return opened(name, *rest)

    return lambda: monkeypatch.setattr(loading, "open_backend", refuse)


def load(
    folder: Path, rows: RowsToScore = loading.NO_ROWS, recorded: Any = (), **wanted: Any
) -> tuple[Model, dict[str, Any]]:
    settings = ComputeSettings(**{"precision": "fp32", **wanted})
    return load_model(open_bundle(str(folder)), ModelSettings(settings, "head"), dict(recorded), rows)


def entries(nights: Path) -> list[Path]:
    return sorted(nights.rglob("*.json"))


def broken(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    """Let our encoder answer ``change(input_ids, logits)``."""
    pack = packed.pack

    def packed_otherwise(encoder: Any, dtype: torch.dtype) -> Any:
        forward = pack(encoder, dtype)
        return lambda ids, mask: change(ids, forward(ids, mask))

    monkeypatch.setattr(packed, "pack", packed_otherwise)


def test_our_code_runs_a_plain_folder_and_answers_as_plain_transformers(tiny_model: Path) -> None:
    texts = TEXTS
    model, compute = load(tiny_model)
    found = score_part(rows_of([*texts]), model).probabilities
    np.testing.assert_allclose(found, alone(tiny_model, texts, 512), rtol=0, atol=1e-5)
    assert (compute["backend"], compute["references"]["from"]) == ("torch", "computed")
    assert compute["references"]["largest_change"] < 1e-5


def test_on_the_second_night_transformers_runs_nothing(
    tiny_model: Path, nights: Path, without_transformers: Callable[[], None]
) -> None:
    first = load(tiny_model)[1]
    without_transformers()
    model, second = load(tiny_model)
    assert second == {**first, "references": {**first["references"], "from": "cache"}}
    assert model.backend.name == "torch"


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda content: content[:90] + bytes([content[90] ^ 1]) + content[91:],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_computed_again(kind: str, tiny_model: Path, second_night: Path) -> None:
    (entry,) = entries(second_night)
    sound = entry.read_bytes()
    entry.write_bytes(DAMAGE[kind](sound))
    assert load(tiny_model)[1]["references"]["from"] == "computed"
    assert entry.read_bytes() == sound


@pytest.mark.parametrize("key", ["logits", "digests", "padding_mode"])
def test_an_entry_that_is_wrong_though_sound_is_computed_again(
    key: str, tiny_model: Path, second_night: Path
) -> None:
    (entry,) = entries(second_night)
    sound = entry.read_bytes()
    value = json.loads(sound[64:])
    value[key] = {"logits": [row[::-1] for row in value["logits"]], "digests": value["digests"][::-1]}.get(
        key
    )
    if value[key] is None:
        del value[key]
    cache.keep("references", entry.stem, value)
    assert load(tiny_model)[1]["references"]["from"] == "computed"
    assert entry.read_bytes() == sound


def test_other_weights_have_other_references(
    make_model: Callable[..., Path], tiny_model: Path, second_night: Path
) -> None:
    assert load(make_model(seed=7))[1]["references"]["from"] == "computed"
    assert len(entries(second_night)) == 2


def test_a_cache_that_cannot_be_written_is_no_harm(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    assert load(tiny_model)[1]["backend"] == "torch"


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_folder() == Path("/x/batchscore")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, so it does not count")
    monkeypatch.setenv("HOME", "/h")
    assert cache.cache_folder() == Path("/h/.cache/batchscore")
    monkeypatch.setenv(cache.VARIABLE, "Off")
    assert cache.cache_folder() is None


def test_old_values_make_room(nights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_KEPT", 3)
    for number in range(5):
        cache.keep("kind", str(number), number)
    assert len(entries(nights)) == 3
    assert cache.recall("kind", "4") == 4


def test_a_wrong_encoder_gives_way_to_transformers(
    tiny_model: Path, second_night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2e-3 in a logit, which no canary of a bundle would notice."""
    broken(monkeypatch, lambda _, logits: logits + torch.tensor([0.0, 2e-3]))
    assert load(tiny_model)[1]["backend"] == "transformers"
    with pytest.raises(ModelError, match=r"off those of plain transformers.*--backend transformers"):
        load(tiny_model, backend="torch")


@pytest.mark.parametrize(("off", "taken"), [(1e-3, "bf16"), (0.5, "fp32")])
def test_a_lower_precision_is_taken_where_the_references_agree(
    off: float, taken: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a stand-in for rounding, bfloat16 here is float32 and something more."""
    pack = packed.pack

    def rounded(encoder: Any, dtype: torch.dtype) -> Any:
        forward = pack(encoder, torch.float32)
        change = torch.tensor([0.0, off if dtype == torch.bfloat16 else 0.0])
        return lambda ids, mask: forward(ids, mask) + change

    monkeypatch.setattr(packed, "pack", rounded)
    monkeypatch.setattr(torch_backend, "faster_precisions", lambda _: ["bf16"])
    fails = torch_backend._plain

    def plain(bundle: Bundle, dtype: torch.dtype, *rest: Any, **more: Any) -> Any:
        if dtype == torch.bfloat16:
            raise ModelError("transformers cannot, either")
        return fails(bundle, dtype, *rest, **more)

    monkeypatch.setattr(torch_backend, "_plain", plain)
    compute = load(tiny_model, precision="auto")[1]
    assert (compute["backend"], compute["precision"]) == ("torch", taken)


def test_texts_of_the_run_count_too_and_rule_out_what_differs_on_them(
    tiny_model: Path, second_night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return logits + (ids == ZEBRA).any(1, keepdim=True) * torch.tensor([0.0, 0.1])

    broken(monkeypatch, wrong)
    rows = RowsToScore(600, lambda: (None, " ", OWN[0], *OWN))
    assert load(tiny_model)[1]["backend"] == "torch"  # as nothing shows it
    compute = load(tiny_model, rows)[1]
    assert (compute["backend"], compute["references"]["texts_of_the_run"]) == ("transformers", 3)
    again = load(tiny_model, rows)[1]
    assert (again["backend"], again["references"]["texts_of_the_run"]) == ("transformers", 0)
    (entry,) = entries(second_night)
    assert b"zebra" not in entry.read_bytes()
    assert json.loads(entry.read_bytes()[64:])["own"] == 3


def test_a_few_rows_more_the_next_night_do_not_load_transformers_again(
    tiny_model: Path, second_night: Path, without_transformers: Callable[[], None]
) -> None:
    load(tiny_model, RowsToScore(1000, lambda: OWN))
    without_transformers()
    assert load(tiny_model, RowsToScore(2000, lambda: OWN))[1]["references"]["texts_of_the_run"] == 0


@pytest.mark.parametrize(("rows", "texts"), [(0, 0), (199, 0), (200, 1), (10_000, 50), (10**9, 64)])
def test_the_number_of_texts_depends_on_the_rows_alone(rows: int, texts: int) -> None:
    assert RowsToScore(rows).own_texts == texts


def test_time_for_texts_of_the_run_is_bounded(
    tiny_model: Path, second_night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "_OWN_SECONDS", 0.0)
    compute = load(tiny_model, RowsToScore(20_000, lambda: OWN))[1]
    assert compute["references"]["texts_of_the_run"] == 16


def test_a_tokenizer_that_transformers_reads_in_another_way_is_left_to_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    """``tokenizer.json`` keeps case here, ``tokenizer_config.json`` does not, and transformers goes by the latter."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "tokenizer.json"
    saved = json.loads(path.read_bytes())
    saved["normalizer"]["lowercase"] = not saved["normalizer"]["lowercase"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    texts = [text.upper() for text in TEXTS]
    model, compute = load(folder)
    found = score_part(rows_of([*texts]), model).probabilities
    np.testing.assert_allclose(found, alone(folder, texts, 512), rtol=0, atol=1e-5)
    assert (compute["backend"], "references" in compute) == ("transformers", False)


def test_public_texts_are_all_different_and_as_many_as_canaries(tiny_model: Path) -> None:
    texts = public_texts(Tokenizer(open_bundle(str(tiny_model))))
    assert len(set(texts)) == len(texts) == 32
    assert all(str(text).strip() for text in texts)


def test_a_run_goes_on_as_it_began(tiny_model: Path, second_night: Path) -> None:
    first = load(tiny_model)[1]
    assert load(tiny_model, recorded=first)[1] == first
    older = {key: value for key, value in first.items() if key != "references"} | {"backend": "transformers"}
    model, compute = load(tiny_model, recorded=older)
    assert model.backend.name == "transformers"
    assert "references" not in compute


def test_the_page_of_a_run_says_where_the_references_came_from(
    tiny_model: Path, nights: Path, tmp_path: Path
) -> None:
    pd.DataFrame({"text": OWN}).to_parquet(tmp_path / "in.parquet")
    for night in ("one", "two"):
        run_score(tmp_path / "in.parquet", tiny_model, tmp_path / night)
    facts = [json.loads((tmp_path / night / "run.json").read_bytes())["compute"] for night in ("one", "two")]
    assert [each["references"]["from"] for each in facts] == ["computed", "cache"]
    assert [each["references"]["texts_of_the_run"] for each in facts] == [1, 0]
    one, two = (pd.read_parquet(tmp_path / night / "predictions" / "in.parquet") for night in ("one", "two"))
    pd.testing.assert_frame_equal(one, two)


def test_transformers_asked_for_is_left_alone(tiny_model: Path, nights: Path) -> None:
    compute = load(tiny_model, backend="transformers")[1]
    assert (compute["backend"], "references" in compute) == ("transformers", False)
    assert not entries(nights)
