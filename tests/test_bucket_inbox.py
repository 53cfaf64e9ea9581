"""An inbox in a bucket, and what looks at runs there: each object is scored once, whatever breaks in between."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_buckets import Proxy, sometimes
from click.testing import CliRunner, Result

import batchscore
from batchscore import cli
from batchscore.addresses import Address
from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import (
    BusyError,
    DataError,
    InterruptedRunError,
    ModelError,
    NoInputError,
    UsageError,
)
from batchscore.inbox import bucket_inbox
from batchscore.inbox.bucket_inbox import LEDGER, BucketInboxSettings, empty, refuse_unfit
from batchscore.inbox.drop_folder import FileOutcome, InboxResult
from batchscore.runs import anywhere, copies
from batchscore.system import leases
from batchscore.system.buckets import BucketStore
from batchscore.system.leases import Lease
from batchscore.system.stores import FolderStore, Store, bytes_of
from batchscore.system.terminal import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")
INBOX, RUNS = Address("s3", "shop", "in"), Address("s3", "shop", "out")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """A folder in the place of all buckets; the store is the whole bucket ``shop``."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("BATCHSCORE_SCRATCH", str(tmp_path / "scratch"))

    def opened(place: Address) -> Store:
        return FolderStore(tmp_path / place.bucket / place.key)

    for module in (anywhere, copies, bucket_inbox):
        monkeypatch.setattr(module, "open_bucket", opened)
    return FolderStore(tmp_path / "shop")


@pytest.fixture
def settings(tiny_bundle: Path) -> BucketInboxSettings:
    score = ScoreSettings((), str(tiny_bundle), Path("/dev/null/x"), read=ReadSettings(part_rows=10))
    return BucketInboxSettings(INBOX, RUNS, score)


@pytest.fixture
def drop(shop: FolderStore, reviews: pd.DataFrame) -> FolderStore:
    shop.put("in/a.csv", reviews.head(12).to_csv(index=False).encode())
    shop.put("in/thesis.pdf", b"%PDF")
    shop.put("in/deeper/b.csv", b"text\nx\n")
    return shop


def emptied(settings: BucketInboxSettings) -> InboxResult:
    return empty(settings, lambda _: None, lambda total: Progress(total, quiet=True))


def told(result: InboxResult) -> dict[str, tuple[str, int]]:
    return {each.name: (each.status, each.rows) for each in result.files}


def names(store: FolderStore, below: str = "in") -> set[str]:
    return {each.name.removeprefix("in/") for each in store.list(below) if f"{LEDGER}/" not in each.name}


def test_each_object_is_scored_once_and_kept(drop: FolderStore, settings: BucketInboxSettings) -> None:
    result = emptied(settings)
    assert told(result) == {"a.csv": ("scored", 12), "thesis.pdf": ("failed", 0)}
    (outcome,) = (each for each in result.files if each.status == "scored")
    assert outcome.folder.startswith(f"{RUNS}/")
    assert f"{outcome.folder.removeprefix('s3://shop/')}/_SUCCESS" in names(drop, "out")
    before = names(drop)
    assert emptied(settings).files == ()
    assert names(drop) == before == {"a.csv", "thesis.pdf", "deeper/b.csv"}
    drop.put("in/a.csv", b"text,label\nanother night,1\n")
    assert told(emptied(settings)) == {"a.csv": ("scored", 1)}


def test_it_is_moved_or_removed(drop: FolderStore, settings: BucketInboxSettings) -> None:
    content = bytes_of(drop, "in/a.csv")
    emptied(dataclasses.replace(settings, after="delete"))
    assert names(drop) == {"thesis.pdf", "deeper/b.csv"}
    drop.put("in/c.csv", content)
    emptied(dataclasses.replace(settings, after="move"))
    assert names(drop) == {"done/c.csv", "failed/thesis.pdf", "failed/thesis.pdf.error.txt", "deeper/b.csv"}
    assert bytes_of(drop, "in/done/c.csv") == content


def test_a_call_that_was_killed_before_it_moved_what_it_scored_is_made_good(
    drop: FolderStore, settings: BucketInboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(settings)  # scored and entered, and then nothing
    assert told(emptied(dataclasses.replace(settings, after="move"))) == {
        "a.csv": ("done", 12),
        "thesis.pdf": ("failed", 0),
    }
    assert "done/a.csv" in names(drop)
    assert len([name for name in names(drop, "out") if name.endswith("_SUCCESS")]) == 1


class Killed(BaseException):
    """The machine is gone."""


def gone(*_: Any) -> None:
    raise Killed


def test_what_calls_die_on_is_set_aside_in_the_end(
    drop: FolderStore, settings: BucketInboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: Any) -> None:
        monkeypatch.setattr(bucket_inbox._Call, "_note", gone)  # nothing is done any more
        raise Killed

    noting = bucket_inbox._Call._note
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    with monkeypatch.context() as patched:
        patched.setattr(bucket_inbox, "score", dying)
        for _ in range(3):
            with pytest.raises(Killed):
                emptied(settings)
            monkeypatch.setattr(bucket_inbox._Call, "_note", noting)
        result = emptied(settings)
    assert told(result)["a.csv"] == ("failed", 0)
    assert "died while they scored it" in result.files[0].message


def test_what_is_not_its_fault_leaves_it_for_the_next_call(
    drop: FolderStore, settings: BucketInboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any) -> None:
        raise BusyError("Another run holds it.")

    with monkeypatch.context() as patched:
        patched.setattr(bucket_inbox, "score", busy)
        for _ in range(4):
            assert told(emptied(settings))["a.csv"] == ("waiting", 0)
    assert told(emptied(settings)) == {"a.csv": ("scored", 12)}


def test_neither_a_signal_nor_a_model_that_cannot_be_used_is_its_death(
    drop: FolderStore, settings: BucketInboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = [ModelError("There is none."), InterruptedRunError("Terminated.", 15)]
    for error in 2 * errors:

        def failing(*_: Any, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(bucket_inbox, "score", failing)
            with contextlib.suppress(InterruptedRunError):
                assert isinstance(emptied(settings).error, ModelError)
    assert told(emptied(settings))["a.csv"] == ("scored", 12)


def test_one_that_calls_die_on_while_they_get_on_is_not_set_aside(
    drop: FolderStore, settings: BucketInboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Address] = []

    def dying(given: ScoreSettings, *_: Any) -> None:
        assert given.bucket is not None
        runs.append(given.bucket)
        drop.put(f"{given.bucket.key}/.staging/{64 * '0'}/parts/{len(runs)}.npz", b"")
        monkeypatch.setattr(bucket_inbox._Call, "_note", gone)
        raise Killed

    noting = bucket_inbox._Call._note
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    for _ in range(5):
        monkeypatch.setattr(bucket_inbox._Call, "_note", noting)
        monkeypatch.setattr(bucket_inbox, "score", dying)
        with pytest.raises(Killed):
            emptied(settings)
    assert len(set(runs)) == 1


def test_what_is_moved_takes_the_place_of_nothing(drop: FolderStore, settings: BucketInboxSettings) -> None:
    settings = dataclasses.replace(settings, after="move")
    emptied(settings)
    first = bytes_of(drop, "in/done/a.csv")
    drop.put("in/a.csv", b"text,label\nanother night,1\n")
    drop.put("in/thesis.pdf", b"%PDF 2")
    emptied(settings)
    assert bytes_of(drop, "in/done/a.csv") == first
    assert bytes_of(drop, "in/done/a-2.csv") == b"text,label\nanother night,1\n"
    assert {"failed/thesis-2.pdf", "failed/thesis-2.pdf.error.txt"} < names(drop)
    drop.put("in/a.csv", first)  # by a call that was killed before it removed it
    emptied(settings)
    assert "done/a-3.csv" not in names(drop)


def test_another_version_than_the_one_that_was_listed_is_for_the_next_call(
    drop: FolderStore, settings: BucketInboxSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written_meanwhile(*given: Any) -> Any:
        drop.put("in/a.csv", b"text,label\nanother night,1\n")
        return anywhere.score(*given)

    with monkeypatch.context() as patched:
        patched.setattr(bucket_inbox, "score", written_meanwhile)
        assert told(emptied(settings))["a.csv"] == ("waiting", 0)
    assert told(emptied(settings)) == {"a.csv": ("scored", 1)}


def test_a_marker_is_waited_for_and_one_call_holds_the_inbox(
    drop: FolderStore, settings: BucketInboxSettings
) -> None:
    marked = dataclasses.replace(settings, require_done=True)
    assert emptied(marked).settling == ("a.csv", "thesis.pdf")
    drop.put("in/a.csv.done", b"")
    assert told(emptied(marked)) == {"a.csv": ("scored", 12)}
    with Lease(FolderStore(drop._folder.path / "in"), LEDGER), pytest.raises(BusyError):
        emptied(settings)


def options(**given: Any) -> dict[str, Any]:
    none = dict.fromkeys(("watch", "dry_run", "append_to", "keep_days", "baseline", "reuse"))
    return {**none, **given}


@pytest.mark.parametrize(
    ("after", "given", "inbox", "output", "message"),
    [
        (None, {}, Path("in"), RUNS, "Let both be in buckets"),
        ("keep", {}, Path("in"), Path("out"), "--after keep"),
        (None, {"watch": True}, INBOX, RUNS, "--watch"),
        (None, {"keep_days": 3}, INBOX, RUNS, "--keep-days"),
        (None, {"baseline": "latest"}, INBOX, RUNS, "Name the run"),
    ],
)
def test_what_an_inbox_in_a_bucket_has_not_is_refused(
    after: str | None, given: dict[str, Any], inbox: Any, output: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_unfit(after, options(**given), inbox, output)


# -------------------------------------------------------------------------------------------------- the commands


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(each) for each in arguments])


def test_the_commands_and_python_see_what_is_in_a_bucket(
    tiny_bundle: Path, reviews: pd.DataFrame, proxy: Proxy, tmp_path: Path
) -> None:
    place = Address("s3", "reviews", tmp_path.name)
    store = BucketStore(place)
    store.put("in/shop.csv", reviews.head(12).to_csv(index=False).encode())
    proxy.plan = sometimes(0.05, seed=11)
    emptied_it = call(
        "inbox", place / "in", "--output", place / "runs", "--model", tiny_bundle, "--after", "move", "--json"
    )
    assert emptied_it.exit_code == 0, emptied_it.output
    (file,) = json.loads(emptied_it.stdout.splitlines()[-1])["files"]
    run = file["folder"]
    assert (file["status"], file["rows"]) == ("scored", 12)
    assert "in/done/shop.csv" in {each.name for each in store.list()}
    assert f"{run}: run, " in call("verify", run).stdout
    inspected = json.loads(call("inspect", run, "--json").stdout)
    assert inspected["kind"] == "run"
    opened = batchscore.open_run(run)
    assert opened.predictions.num_rows == 12
    page = call("report", place / "runs")
    assert page.exit_code == 0, page.output
    assert page.stdout.splitlines()[-1] == f"{place}/runs/report.html"
    html = bytes_of(store, "runs/report.html").decode()
    assert f"{'/'.join(run.split('/')[-2:])}/report.html" in html
    table = batchscore.score(reviews.head(5), tiny_bundle, f"{place}/table", quiet=True)
    assert (table.status, len(table.predictions)) == ("scored", 5)
    store.put(f"{run.removeprefix(f'{place}/')}/metrics.json", b"{}")
    changed = call("verify", run)
    assert (changed.exit_code, run in changed.stderr) == (65, True), changed.output
    with pytest.raises(DataError, match="metrics"):
        batchscore.open_run(run)
    with pytest.raises(NoInputError, match="There is nothing at"):
        batchscore.open_run(f"{place}/none")


def test_a_line_is_told_of_each(drop: FolderStore, settings: BucketInboxSettings) -> None:
    seen: list[FileOutcome] = []
    empty(settings, seen.append, lambda total: Progress(total, quiet=True))
    assert [each.name for each in seen] == ["a.csv", "thesis.pdf"]
    assert "ends with none of" in seen[1].message
