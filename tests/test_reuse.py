"""``--reuse``: a text that was scored is not scored again, the bytes are the same, and wrong answers are found."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import run_score
from test_locks_and_signals import comparable

from batchscore.config import ComputeSettings, ReadSettings
from batchscore.errors import BatchscoreError, DataError, ModelError, NoInputError, TakenError, UsageError
from batchscore.model import answer_bits
from batchscore.model.answer_bits import deciding_fingerprint
from batchscore.model.backends.torch_backend import TorchBackend
from batchscore.model.bundle import open_bundle
from batchscore.records import MicroBatch
from batchscore.runs import answer_store, reuse, work
from batchscore.runs.answer_store import DATABASE, Answer, AnswerStore, TextDigests, _row
from batchscore.runs.result import RunResult
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import STAGING

ASKED: dict[str, Any] = {
    "compute": ComputeSettings(device="cpu", precision="fp32", max_batch_tokens=256, workers=2),
    "read": ReadSettings(part_rows=16),
}


class Nights:
    """A file of last night, one of tonight of which 30 rows are old, and what plain scoring makes of it."""

    def __init__(self, model: Path, folder: Path, reviews: pd.DataFrame) -> None:
        self.model, self.folder = model, folder
        rows = pd.concat([reviews.head(25)] * 2, ignore_index=True)
        rows["text"] = [
            f"{text} {row % 41}" if isinstance(text, str) else text for row, text in enumerate(rows["text"])
        ]
        rows.loc[3, "text"] = 'odd "quotes"\nand lines, \tnul-free 日本 🎬 '
        rows.head(30).to_csv(folder / "old.csv", index=False)
        rows.iloc[:].to_csv(folder / "new.csv", index=False)
        self.old = self.score("old.csv", "old", reuse=folder / "store")
        self.plain = comparable(self.score("new.csv", "plain").output)

    def score(self, name: str, output: str, **options: Any) -> RunResult:
        return run_score(self.folder / name, self.model, self.folder / output, **{**ASKED, **options})

    def store(self, folder: Path) -> Path:
        """A copy of the store with last night's answers."""
        shutil.copytree(self.folder / "store", folder)
        return folder

    @property
    def texts(self) -> list[str]:
        frame = pd.read_csv(self.folder / "old.csv", keep_default_na=False)
        return [text for text in frame["text"] if text.strip()]

    @property
    def digests(self) -> TextDigests:
        return TextDigests(facts(self.old)["deciding"])


def facts(result: RunResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.output / "run.json").read_text())
    return found


@pytest.fixture(scope="module")
def nights(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    from batchscore import samples

    return Nights(tiny_bundle, tmp_path_factory.mktemp("nights"), pd.DataFrame(samples.load("test")))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each forward pass for a run's own rows."""
    import threading

    seen: list[int] = []
    whole = TorchBackend.logits

    def logits(backend: TorchBackend, batch: MicroBatch) -> Any:
        if threading.current_thread().name.startswith("worker"):
            seen.append(len(batch.input_ids))
        return whole(backend, batch)

    monkeypatch.setattr(TorchBackend, "logits", logits)
    return seen


def test_answers_of_a_store_are_the_bytes_that_scoring_gives(
    nights: Nights, tmp_path: Path, scored: list[int]
) -> None:
    store = nights.store(tmp_path / "store")
    first = nights.score("new.csv", "stored", reuse=store)
    assert comparable(first.output) == nights.plain
    told = facts(first)["reuse"]
    assert told["rows"] + told["audited"] >= 28
    assert told["audited"] >= 2  # one in each part
    assert told["audited_otherwise"] == 0
    assert sum(scored) < 30
    scored.clear()
    again = nights.score("new.csv", "again", reuse=store, audit=0.0)
    assert not scored  # what was new is in the store now
    assert comparable(again.output) == nights.plain


@pytest.mark.parametrize("output_format", ["same", "parquet"])
def test_answers_of_an_earlier_run_are_too(
    output_format: str, nights: Nights, tmp_path: Path, scored: list[int]
) -> None:
    earlier = nights.old.output
    if output_format == "parquet":
        earlier = nights.score("old.csv", str(tmp_path / "earlier"), output_format="parquet").output
    scored.clear()
    result = nights.score("new.csv", str(tmp_path / "run"), reuse=earlier)
    assert comparable(result.output) == nights.plain
    assert facts(result)["reuse"]["rows"] >= 26
    assert sum(scored) < 30


def test_the_latest_run_is_found_and_none_yet_is_no_error(nights: Nights, tmp_path: Path) -> None:
    shutil.copyfile(nights.folder / "new.csv", tmp_path / "night.csv")
    shutil.copytree(nights.old.output, tmp_path / "runs" / "old")
    alone = run_score(
        tmp_path / "night.csv", nights.model, tmp_path / "other" / "run", reuse="latest", **ASKED
    )
    assert facts(alone)["reuse"]["rows"] == 0
    result = run_score(
        tmp_path / "night.csv", nights.model, tmp_path / "other" / "next", reuse="latest", **ASKED
    )
    assert facts(result)["reuse"]["rows"] > 40
    assert facts(result)["reuse"]["path"] == str(alone.output)  # which one it was
    assert comparable(result.output) == comparable(alone.output)


def test_a_stopped_run_goes_on_with_the_same_bytes_though_the_store_has_changed(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_WRITE_SECONDS", 0.0)
    whole, left = TorchBackend.logits, [0]

    class Stopped(BaseException):
        pass

    def logits(backend: TorchBackend, batch: MicroBatch) -> Any:
        import threading

        if threading.current_thread().name.startswith("worker"):
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
        return whole(backend, batch)

    monkeypatch.setattr(TorchBackend, "logits", logits)
    store, other = nights.store(tmp_path / "store"), tmp_path / "another"
    for passes, source in ((3, store), (4, other), (3, None), (2, store)):
        left[0] = passes
        with pytest.raises(Stopped):
            nights.score("new.csv", str(tmp_path / "run"), reuse=source)
    left[0] = 10**6
    nights.score("old.csv", str(tmp_path / "more"), reuse=other)
    assert comparable(nights.score("new.csv", str(tmp_path / "run"), reuse=other).output) == nights.plain


def poison(store: Path, digests: TextDigests, texts: list[str], *, change: float) -> None:
    """Make answers wrong, as whoever knows the format could."""
    opened = AnswerStore(OwnPath(store))
    keys = [digests.of(text) for text in texts]
    found = opened.find(keys, 2)
    assert len(found) == len(set(keys))
    with sqlite3.connect(store / DATABASE) as connection:
        for digest, answer in found.items():
            values = (
                answer.values[::-1]
                if change == 1
                else answer.values + np.array([change, -change], np.float32)
            )
            key, content = _row(digest, Answer(answer.n_tokens, values))
            connection.execute("UPDATE answers SET answer = ? WHERE key = ?", (content, key))
    connection.close()
    opened.close()


def test_a_store_with_wrong_answers_is_refused_for_good_and_nothing_is_written_from_it(
    nights: Nights, tmp_path: Path
) -> None:
    store = nights.store(tmp_path / "store")
    poison(store, nights.digests, nights.texts[20:], change=1)  # those of the first part are right
    with pytest.raises(ModelError, match=r"others than the model gives.*without --reuse"):
        nights.score("new.csv", str(tmp_path / "run"), reuse=store, audit=1.0)
    assert list((tmp_path / "run" / STAGING).glob("*/parts/*"))
    with pytest.raises(ModelError, match="no answer is taken from it any more"):
        nights.score("new.csv", str(tmp_path / "run"), reuse=store)
    result = nights.score("new.csv", str(tmp_path / "run"))
    assert comparable(result.output) == nights.plain
    assert facts(result)["reuse"] is None


def test_parts_of_a_store_that_is_no_longer_named_are_scored_again(nights: Nights, tmp_path: Path) -> None:
    store = nights.store(tmp_path / "store")
    poison(store, nights.digests, nights.texts, change=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reuse, "canary_check", lambda *_: answer_agrees())
        patch.setattr(reuse.Reuse, "finish", stopped)
        with pytest.raises(EOFError):
            nights.score("new.csv", str(tmp_path / "run"), reuse=store)
    assert len(list((tmp_path / "run" / STAGING).glob("*/parts/*"))) == 4
    assert comparable(nights.score("new.csv", str(tmp_path / "run")).output) == nights.plain


def answer_agrees() -> Any:
    from batchscore.model.canaries import CanaryCheck

    return CanaryCheck(0, 0.0)


def stopped(_: Any) -> None:
    raise EOFError


def test_an_answer_that_differs_within_the_tolerance_is_told(
    nights: Nights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = nights.store(tmp_path / "store")
    poison(store, nights.digests, nights.texts, change=1e-6)
    result = nights.score("new.csv", str(tmp_path / "run"), reuse=store, audit=1.0)
    assert "not to the last bit" in caplog.text
    assert facts(result)["reuse"]["audited_otherwise"] > 20
    assert comparable(result.output) == nights.plain  # all were scored again


def test_the_audit_finds_a_poisoned_store_with_the_stated_probability() -> None:
    """One answer in 1,000 is wrong; each night takes 20,000, audits 1 %, and finds one of the 20 with 1 - 0.99^20 = 18 %."""
    share, wrong, nights = 0.01, 20, 400
    digests = [n.to_bytes(16, "little") for n in range(20_000)]
    bad = set(np.random.default_rng(7).choice(len(digests), wrong, replace=False).tolist())
    found = drawn = 0
    for night in range(nights):
        auditor = reuse.Reuse.__new__(reuse.Reuse)
        auditor._share, auditor._seed = share, night.to_bytes(32, "little")
        chosen = [n for n in bad if auditor._draw(digests[n]) < share]
        found += bool(chosen)
        if night < 5:
            drawn += len(auditor._drawn(digests))
    expected = 1 - (1 - share) ** wrong
    assert abs(found / nights - expected) < 3 * (expected * (1 - expected) / nights) ** 0.5
    assert abs(drawn / 5 / len(digests) - share) < 0.002


def changed_bytes(store: Path) -> None:
    with sqlite3.connect(store / DATABASE) as connection:
        connection.execute("UPDATE answers SET answer = substr(answer, 1, 19) || x'00'")
    connection.close()


def overwritten(store: Path, at: int) -> None:
    data = bytearray((store / DATABASE).read_bytes())
    data[at : at + 4096] = b"\xff" * 4096
    (store / DATABASE).write_bytes(data)


def another(store: Path) -> None:
    (store / DATABASE).unlink()
    with sqlite3.connect(store / DATABASE) as connection:
        connection.execute("CREATE TABLE answers (a, b)")
    connection.close()


def linked(store: Path) -> None:
    (store / DATABASE).rename(store.parent / "elsewhere")
    (store / DATABASE).symlink_to(store.parent / "elsewhere")


HARMS: dict[str, tuple[Callable[[Path], Any], type[BatchscoreError]]] = {
    "an answer was changed": (changed_bytes, DataError),
    "pages were overwritten": (lambda store: overwritten(store, 4096), DataError),
    "no database": (lambda store: overwritten(store, 0), TakenError),
    "another database": (another, TakenError),
    "something else in the folder": (lambda store: (store / "notes.txt").write_text("x"), TakenError),
    "a link": (linked, TakenError),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_or_foreign_store_is_refused(harm: str, nights: Nights, tmp_path: Path) -> None:
    store = nights.store(tmp_path / "store")
    spoil, kind = HARMS[harm]
    spoil(store)
    with pytest.raises(kind, match="--reuse"):
        looked_up(store, nights)


def looked_up(store: Path, nights: Nights) -> None:
    opened = AnswerStore(OwnPath(store))
    try:
        opened.find([nights.digests.of(text) for text in nights.texts], 2)
    finally:
        opened.close()


def test_a_locked_store_and_a_full_disk_are_told(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_store, "_PATIENCE", 0.0)
    monkeypatch.setattr(answer_store, "_STEP", 0.01)
    store = AnswerStore(OwnPath(nights.store(tmp_path / "store")))
    blocker = sqlite3.connect(tmp_path / "store" / DATABASE, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    new = {bytes(range(16)): Answer(7, np.array([0.25, 0.75], np.float32))}
    store.add(new)
    assert store.find([nights.digests.of(nights.texts[0])], 2)  # read while another writes
    with pytest.raises(BatchscoreError) as busy:
        store.flush()
    assert busy.value.exit_code == 75
    blocker.execute("ROLLBACK")
    blocker.close()
    store.flush()
    assert store.find(new, 2)[bytes(range(16))].n_tokens == 7
    store._writer.execute("PRAGMA max_page_count = 3")
    store.add({n.to_bytes(16, "little"): Answer(1, np.array([0, 1], np.float32)) for n in range(5000)})
    with pytest.raises(BatchscoreError, match="full") as full:
        store.flush()
    assert full.value.exit_code == 74
    store.close()


def test_no_text_is_in_the_store_and_a_row_is_small(nights: Nights) -> None:
    data = (nights.folder / "store" / DATABASE).read_bytes()
    assert not any(text[:12].encode() in data for text in nights.texts)
    with sqlite3.connect(nights.folder / "store" / DATABASE) as connection:
        sizes = {len(row[0]) for row in connection.execute("SELECT answer FROM answers")}
    connection.close()
    assert sizes == {20}


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "without texts": ({"drop_columns": ("text",)}, "do not hold the texts"),
    "without all probabilities": ({"probabilities": "top"}, "--probabilities all"),
}


@pytest.mark.parametrize("lacking", REFUSED)
def test_a_run_that_lacks_columns_is_refused_and_says_which(
    lacking: str, nights: Nights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options, said = REFUSED[lacking]
    earlier = nights.score("old.csv", str(tmp_path / "earlier"), **options).output
    with pytest.raises(DataError, match=said):
        nights.score("new.csv", str(tmp_path / "run"), reuse=earlier)
    result = nights.score("old.csv", str(tmp_path / "next"), reuse="latest", **options)
    assert comparable(result.output) == comparable(earlier)  # nobody named it, so no night is refused
    assert said in caplog.text
    assert facts(result)["reuse"]["rows"] == 0


def test_a_run_that_was_changed_or_has_not_finished_is_refused(nights: Nights, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(nights.old.output, earlier)
    path = earlier / "predictions" / "old.csv"
    path.write_bytes(path.read_bytes().replace(b"0.", b"0.0", 1))
    with pytest.raises(DataError, match="not those that were written"):
        nights.score("new.csv", str(tmp_path / "run"), reuse=earlier)
    (earlier / "_SUCCESS").unlink()
    with pytest.raises((NoInputError, TakenError), match="--reuse"):
        nights.score("new.csv", str(tmp_path / "run"), reuse=earlier)


def test_answers_of_another_model_or_precision_are_not_taken(
    nights: Nights, make_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_model(seed=5)
    result = run_score(nights.folder / "new.csv", other, tmp_path / "run", reuse=nights.old.output, **ASKED)
    assert facts(result)["reuse"]["rows"] == 0
    assert "no answer is taken from it" in caplog.text
    bundle = open_bundle(str(other))
    compute = {
        "backend": "torch",
        "device": "cpu",
        "precision": "fp32",
        "padding": "right",
        "long_text": "head",
    }
    known = deciding_fingerprint(bundle, compute, 8)
    found = [deciding_fingerprint(bundle, {**compute, name: "other"}, 8) for name in compute]
    found += [deciding_fingerprint(bundle, compute, 9), facts(nights.old)["deciding"]]
    found.append(deciding_fingerprint(bundle, compute, 8, alone=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_bits, "_processor", lambda: "another")
        found.append(deciding_fingerprint(bundle, compute, 8))
        patch.undo()
        patch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        found.append(deciding_fingerprint(bundle, compute, 8))
        patch.undo()
        assert deciding_fingerprint(bundle, compute, 8) == known
    assert len({known, *found}) == 1 + len(found)


def test_a_way_to_compute_that_depends_on_neighbours_is_refused_unless_each_text_goes_alone(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataclasses.replace(ASKED["compute"], backend="transformers")
    with pytest.raises(UsageError, match="--max-batch-tokens 1"):
        nights.score("new.csv", str(tmp_path / "no"), reuse=tmp_path / "store", compute=plain)
    alone = {"compute": dataclasses.replace(plain, max_batch_tokens=1)}
    expected = nights.score("new.csv", str(tmp_path / "plain"), **alone)
    nights.score("old.csv", str(tmp_path / "old"), reuse=tmp_path / "store", **alone)
    found = nights.score("new.csv", str(tmp_path / "run"), reuse=tmp_path / "store", **alone)
    assert comparable(found.output) == comparable(expected.output)
    assert facts(found)["reuse"]["rows"] > 20
    together = nights.score("old.csv", "together", compute=plain)
    taken = nights.score("new.csv", str(tmp_path / "taken"), reuse=together.output, **alone)
    assert facts(taken)["reuse"]["rows"] == 0  # its answers depend on the texts that were beside them
    assert comparable(taken.output) == comparable(expected.output)
    whole = TorchBackend.logits
    monkeypatch.setattr(
        TorchBackend,
        "logits",
        lambda self, batch: whole(self, batch) + np.float32(1e-7) * len(batch.input_ids),
    )
    with pytest.raises(ModelError, match="depends on the texts beside it"):
        nights.score("new.csv", str(tmp_path / "never"), reuse=tmp_path / "store")


def test_digests_tell_texts_and_pairs_apart() -> None:
    digests = TextDigests("ab" * 32)
    texts: list[Any] = [
        "ab",
        "a",
        ("a", "b"),
        ("ab", ""),
        ("", "ab"),
        ("a", ""),
        "pair 1 ab",
        "\ud800",
        "\1" + "\0" * 7 + "ab",
    ]
    assert len({digests.of(text) for text in texts}) == len(texts)
    assert digests.of("a") != TextDigests("cd" * 32).of("a")


def test_answers_that_were_written_as_text_are_read_back_to_the_last_bit() -> None:
    generator = np.random.default_rng(3)
    values = np.concatenate([generator.random(20_000, np.float32), generator.random(20_000, np.float32) ** 9])
    assert np.array_equal(np.array([str(value) for value in values], dtype=np.float32), values)
