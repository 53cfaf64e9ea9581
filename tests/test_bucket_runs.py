"""Runs into a bucket, of inputs and models in one: the bytes of a folder's run, whatever breaks and whenever it is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from broken_buckets import SECRET, Proxy, sometimes
from click.testing import CliRunner, Result
from conftest import run_score

import batchscore
from batchscore import cli
from batchscore.addresses import Address
from batchscore.config import ReadSettings, ScoreSettings
from batchscore.errors import (
    BusyError,
    DataError,
    NoInputError,
    NothingToDoError,
    OutputError,
    TakenError,
    UsageError,
)
from batchscore.formats import spooling
from batchscore.runs import anywhere, copies
from batchscore.runs.anywhere import score
from batchscore.runs.bucket_run import BucketRun
from batchscore.runs.folder import MANIFEST, TIMED
from batchscore.runs.result import RunResult
from batchscore.system import leases
from batchscore.system.buckets import BucketStore
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import read_manifest
from batchscore.system.stores import Content, FolderStore, Store, Version, bytes_of
from batchscore.system.terminal import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")
SMALL = ReadSettings(part_rows=10)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("BATCHSCORE_SCRATCH", str(folder))
    yield folder
    assert not list(folder.iterdir()), "nothing is left on this machine"


@pytest.fixture(scope="module")
def local(tiny_bundle: Path, reviews: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two inputs, ``in``, and the run of them in ``run``."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "in").mkdir()
    reviews.head(25).to_csv(folder / "in/a.csv", index=False)
    reviews.tail(12).to_parquet(folder / "in/b.parquet")
    run_score(folder / "in", tiny_bundle, folder / "run", read=SMALL)
    return folder


@pytest.fixture
def settings(local: Path, tiny_bundle: Path) -> ScoreSettings:
    run = Address("s3", "shop", "runs/2026-11-23")
    return ScoreSettings((str(local / "in"),), str(tiny_bundle), Path("/dev/null/x"), bucket=run, read=SMALL)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of all buckets."""
    root = tmp_path / "buckets"

    def opened(place: Address) -> Store:
        return FolderStore(root / place.bucket / place.key)

    monkeypatch.setattr(anywhere, "open_bucket", opened)
    monkeypatch.setattr(copies, "open_bucket", opened)
    return root


def scored(settings: ScoreSettings) -> RunResult:
    return score(settings, lambda total: Progress(total, quiet=True))


def content(store: Store) -> dict[str, bytes]:
    return {each.name: bytes_of(store, each.name) for each in store.list()}


def listed_in(found: Mapping[str, bytes]) -> dict[str, str]:
    lines = [line.split("  ", 1) for line in found[MANIFEST].decode().splitlines()]
    return {name: digest for digest, name in lines}


def assert_equal_run(found: Mapping[str, bytes], run: Path) -> None:
    """All bytes are those of the run in a folder but what differs each time, and nothing else is there."""
    expected = read_manifest(run)
    assert set(found) == {*expected, MANIFEST}
    hashes = {name: hashlib.sha256(bytes_).hexdigest() for name, bytes_ in found.items()}
    assert {name for name in expected if hashes[name] != expected[name]} <= TIMED
    assert listed_in(found) == {name: hashes[name] for name in expected}


def test_a_table_from_python_is_a_file_that_nobody_else_can_reach(
    local: Path, tiny_bundle: Path, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the temporary files anybody may plant a link under a name that can be guessed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen: list[tuple[Path, int]] = []
    spool = spooling.spool

    def noted(schema: Any, batches: Any, path: OwnPath) -> None:
        seen.append((path.path, path.path.parents[1].stat().st_mode & 0o777))
        spool(schema, batches, path)

    monkeypatch.setattr(spooling, "spool", noted)
    table = pd.read_csv(local / "in/a.csv")
    run = batchscore.score(table, tiny_bundle, "s3://shop/from-python", quiet=True)
    assert run.rows == len(table)
    ((path, mode),) = seen
    assert path.parents[2] == tmp_path / "temporary"
    assert mode == 0o700
    assert not path.parents[1].exists()
    assert MANIFEST in content(FolderStore(shop / "shop/from-python"))


# ------------------------------------------------------------------------------------------------- in a real bucket


def put(folder: Path, place: Address) -> None:
    store = BucketStore(place)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), OwnPath(path.parent) / path.name)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(each) for each in arguments])


def test_a_run_from_a_bucket_into_one_has_the_bytes_of_a_folders_through_whatever_breaks(
    local: Path, tiny_bundle: Path, settings: ScoreSettings, proxy: Proxy, tmp_path: Path
) -> None:
    place = Address("s3", "reviews", tmp_path.name)
    put(local / "in", place / "in")
    put(tiny_bundle, place / "model")
    put(local / "run", place / "earlier")
    run = place / "runs/2026-11-23"
    proxy.plan = sometimes(0.2, seed=3)
    there = dataclasses.replace(
        settings, inputs=(f"{place}/in/",), model=f"{place}/model", bucket=run, baseline=place / "earlier"
    )
    result = scored(there)
    assert {"503", "slow_down", "lost", "cut"} <= proxy.done.keys(), "everything was tried"
    assert (result.status, str(result.place)) == ("scored", str(run))
    assert scored(there).status == "done"
    found = content(BucketStore(run))
    facts = json.loads(found["run.json"])
    assert [file["path"] for file in facts["files"]] == [f"{place}/in/a.csv", f"{place}/in/b.parquet"]
    etag = hashlib.md5((local / "in/a.csv").read_bytes()).hexdigest()
    assert facts["files"][0]["version"] == f'"{etag}"'
    assert (facts["model"]["path"], facts["date"]) == (f"{place}/model", "2026-11-23")
    assert (facts["baseline"]["path"], facts["options"]["baseline"]) == (
        f"{place}/earlier",
        f"{place}/earlier",
    )
    told = b"".join(found[name] for name in TIMED)
    assert str(run).encode() in told
    assert str(tmp_path).encode() not in told.replace(tmp_path.name.encode(), b"")
    compared = tmp_path / "compared"
    run_score(local / "in", tiny_bundle, compared, read=SMALL, baseline=local / "run")
    assert_equal_run(found, compared)


def test_the_command_takes_addresses_and_prints_them(
    local: Path, tiny_bundle: Path, proxy: Proxy, tmp_path: Path
) -> None:
    place = Address("s3", "reviews", tmp_path.name)
    put(local / "in", place / "in")
    proxy.plan = sometimes(0.05, seed=5)
    arguments = ("score", f"{place}/in/*.csv", "--model", tiny_bundle, "--output", place / "run")
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["output"] == str(place / "run")
    again = call(*arguments)
    assert again.stdout.splitlines()[-1] == f"{place}/run/report.html"
    BucketStore(place / "run").put("mismatches.csv", b"{}")
    changed = call(*arguments)
    assert (changed.exit_code, "mismatches.csv: its bytes are not" in changed.stderr) == (73, True), (
        changed.output
    )
    other = call(*arguments, "--prefix", "x_")
    assert (other.exit_code, f"{place}/run holds" in other.stderr) == (73, True), other.output
    assert call(*arguments, "--force").exit_code == 0
    assert call(*arguments, "--verify").exit_code == 0
    proxy.plan = lambda *_: "denied"
    denied = call(*arguments)
    assert (denied.exit_code, "permission denied" in denied.stderr) == (74, True)
    assert SECRET not in denied.output


# ------------------------------------------------------------------------------------------------------- killed


class Killed(BaseException):
    """The machine is gone."""


class Dying:
    """A store whose user is killed at a write, before or after it is done; then nothing can be done."""

    def __init__(self, store: Store, at: int, *, is_done: bool) -> None:
        self._store, self._left, self._is_done = store, at, is_done

    def __str__(self) -> str:
        return str(self._store)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        def dying(*arguments: Any) -> Any:
            is_write = name in {"put", "create", "replace", "delete"}
            self._left -= is_write
            if self._left >= 0:
                return call(*arguments)
            if self._left == -1 and is_write and self._is_done:
                call(*arguments)
            raise Killed

        return dying


def killed_at(write: int, is_done: bool, settings: ScoreSettings, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the run was killed, or finished before that."""
    with monkeypatch.context() as patched:
        opened = copies.open_bucket
        patched.setattr(anywhere, "open_bucket", lambda place: Dying(opened(place), write, is_done=is_done))
        patched.setattr(leases.Lease, "_renew_until_ended", lambda _: None)
        try:
            scored(settings)
        except Killed:
            return True
    return False


@pytest.mark.parametrize(("write", "is_done"), [(6, True), (13, False), (17, True)])
def test_a_run_that_is_killed_at_a_write_goes_on_elsewhere(
    write: int,
    is_done: bool,
    shop: Path,
    settings: ScoreSettings,
    local: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert killed_at(write, is_done, settings, monkeypatch)
    store = FolderStore(shop / "shop/runs/2026-11-23")
    assert MANIFEST not in content(store)
    staged = [each.name for each in store.list(".staging") if "/parts/" in each.name]
    with pytest.raises(BusyError, match="its lease ends within"):
        scored(settings)
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    scored_rows: list[int] = []

    class Counted(Progress):
        def add(self, rows: int, *, counted: bool = True) -> None:
            scored_rows.append(rows if counted else 0)

    score(settings, lambda total: Counted(total, quiet=True))
    assert sum(scored_rows) <= 37 - 7 * len(staged)
    assert_equal_run(content(store), local / "run")


def test_what_a_kill_after_the_last_write_has_left_goes_with_the_next_start(
    shop: Path, settings: ScoreSettings, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, delete = FolderStore(shop / "shop/runs/2026-11-23"), BucketRun._delete

    def dying(place: Any, name: str) -> None:
        if MANIFEST in content(store):
            raise Killed
        delete(place, name)

    with monkeypatch.context() as patched:
        patched.setattr(BucketRun, "_delete", dying)
        with pytest.raises(Killed):
            scored(settings)
    assert [*store.list(".staging")]
    assert scored(settings).status == "done"
    assert not [*store.list(".staging")]
    assert_equal_run(content(store), local / "run")


def test_a_finished_run_that_is_replaced_is_never_half_of_both(
    shop: Path, settings: ScoreSettings, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(dataclasses.replace(settings, output_format="jsonl"))
    store = FolderStore(shop / "shop/runs/2026-11-23")
    forced = dataclasses.replace(settings, force=True)
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    for write in (9, 16):
        assert killed_at(write, True, forced, monkeypatch)
        found = content(store)
        if MANIFEST in found:
            assert all(
                hashlib.sha256(found[name]).hexdigest() == each for name, each in listed_in(found).items()
            )
    scored(forced)
    assert_equal_run(content(store), local / "run")


def test_a_damaged_staged_part_is_scored_again(
    shop: Path, settings: ScoreSettings, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed_at(12, True, settings, monkeypatch)
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    store = FolderStore(shop / "shop/runs/2026-11-23")
    parts = [each.name for each in store.list(".staging") if "/parts/" in each.name]
    assert len(parts) > 1
    store.put(parts[0], bytes_of(store, parts[0])[:-1])
    store.put(parts[1], b"")
    scored(settings)
    assert_equal_run(content(store), local / "run")


def test_no_entry_is_written_over_another_where_a_part_was_damaged(
    shop: Path, settings: ScoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are numbered by how many there were, and there are fewer after it."""
    assert killed_at(12, True, settings, monkeypatch)
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    store = FolderStore(shop / "shop/runs/2026-11-23")

    def entries() -> dict[str, bytes]:
        names = [each.name for each in store.list(".staging") if "/entries/" in each.name]
        return {name: bytes_of(store, name) for name in sorted(names)}

    *_, last = entries()
    folder = last.rpartition("/")[0]
    store.put(f"{folder}/{len(entries()) + 1:08d}", bytes_of(store, last))  # of a later start, after one part
    for each in store.list(".staging"):
        if "/parts/" in each.name:
            store.put(each.name, b"")
    before = entries()
    monkeypatch.setattr(BucketRun, "publish", lambda _: None)
    scored(settings)
    assert before.items() < entries().items()


# ------------------------------------------------------------------------------------------------- two at a time


def during(settings: ScoreSettings, what: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Score, and do something in between, when all parts are staged."""
    publish = BucketRun.publish

    def later(run: BucketRun) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(BucketRun, "publish", publish)
            what()
        publish(run)

    with monkeypatch.context() as patched:
        patched.setattr(BucketRun, "publish", later)
        scored(settings)


def elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another machine: with a scratch folder of its own."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("BATCHSCORE_SCRATCH", str(folder))


def test_of_two_starts_one_runs(
    shop: Path, settings: ScoreSettings, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second() -> None:
        with monkeypatch.context() as patched:
            elsewhere(tmp_path / "other", patched)
            with pytest.raises(BusyError, match=r"Another run holds .*runs/2026-11-23"):
                scored(settings)

    during(settings, second, monkeypatch)
    assert_equal_run(content(FolderStore(shop / "shop/runs/2026-11-23")), local / "run")


def test_a_holder_that_wakes_after_its_lease_changes_nothing(
    shop: Path, settings: ScoreSettings, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(shop / "shop/runs/2026-11-23")
    finished: list[dict[str, bytes]] = []
    now = [100.0]
    monkeypatch.setattr(leases, "_seconds", lambda: now[0])
    monkeypatch.setattr(leases.Lease, "_renew_until_ended", lambda _: None)

    def taken_over() -> None:
        with monkeypatch.context() as patched:
            elsewhere(tmp_path / "other", patched)
            patched.setattr(leases, "_is_gone", lambda _: True)
            scored(settings)
        finished.append(content(store))
        now[0] += 1000

    with pytest.raises(BusyError, match="another run may hold it by now"):
        during(settings, taken_over, monkeypatch)
    assert content(store) == finished[0]
    assert_equal_run(finished[0], local / "run")


def test_what_somebody_else_puts_among_the_finals_is_not_called_finished(
    shop: Path, settings: ScoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, create = FolderStore(shop / "shop/runs/2026-11-23"), FolderStore.create

    def interfering(self: FolderStore, name: str, content: Content) -> Version:
        if name == "run.json":
            store.put("metrics.json", b"{}")
        return create(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(FolderStore, "create", interfering)
        with pytest.raises(BusyError, match=r"(metrics|run)\.json in .* was written by somebody else"):
            scored(settings)
    assert MANIFEST not in content(store)
    assert scored(settings).status == "scored"


# ------------------------------------------------------------------------------------------------------- refused


def test_a_place_that_holds_something_else_is_refused_and_left_alone(
    shop: Path, settings: ScoreSettings
) -> None:
    store = FolderStore(shop / "shop/runs/2026-11-23")
    store.put("thesis.txt", b"mine")
    with pytest.raises(TakenError, match="holds something that is no run"):
        scored(settings)
    assert content(store) == {"thesis.txt": b"mine"}


def test_an_unfinished_run_of_other_options_is_refused_and_forced(
    shop: Path, settings: ScoreSettings, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed_at(12, True, dataclasses.replace(settings, prefix="x_"), monkeypatch)
    monkeypatch.setattr(leases, "_is_gone", lambda _: True)
    store = FolderStore(shop / "shop/runs/2026-11-23")
    before = [each.name for each in store.list(".staging") if "/parts/" in each.name]
    with pytest.raises(TakenError, match="holds an unfinished run"):
        scored(settings)
    assert before == [each.name for each in store.list(".staging") if "/parts/" in each.name]
    scored(dataclasses.replace(settings, force=True))
    assert_equal_run(content(store), local / "run")


def test_a_run_with_too_many_rejects_leaves_their_list(
    shop: Path, settings: ScoreSettings, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text("text,label\ngood,1\nbad,1,2,3\n", encoding="utf-8")
    bad = dataclasses.replace(settings, inputs=(str(tmp_path / "bad.csv"),))
    with pytest.raises(DataError, match=r"All are in s3://shop/runs/2026-11-23/rejects\.jsonl"):
        scored(bad)
    store = FolderStore(shop / "shop/runs/2026-11-23")
    assert set(content(store)) == {"rejects.jsonl", "refused.json"}
    from batchscore.config import Allowance

    scored(dataclasses.replace(bad, max_rejects=Allowance(1)))
    assert {"rejects.jsonl", MANIFEST} <= set(content(store))
    assert "refused.json" not in content(store)


@pytest.mark.parametrize(("skip_empty", "kind"), [(False, NoInputError), (True, NothingToDoError)])
def test_a_night_without_its_input_says_so_in_the_bucket(
    skip_empty: bool, kind: type[Exception], shop: Path, settings: ScoreSettings
) -> None:
    missing = dataclasses.replace(settings, inputs=("s3://shop/none.csv",), skip_empty=skip_empty)
    with pytest.raises(kind, match="No such input"):
        scored(missing)
    (note,) = content(FolderStore(shop / "shop/runs/2026-11-23")).values()
    assert json.loads(note)["date"] == "2026-11-23"
    scored(settings)
    assert "refused.json" not in content(FolderStore(shop / "shop/runs/2026-11-23"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "latest"}, "Name the run"),
        ({"reuse": "latest"}, "Name the run"),
        ({"append_to": Path("lake")}, "--append-to"),
        ({"inputs": ("s3://shop/a.csv", "b.csv")}, "some are addresses"),
    ],
)
def test_what_a_bucket_cannot_do_is_refused(
    change: dict[str, Any], message: str, shop: Path, settings: ScoreSettings
) -> None:
    with pytest.raises(UsageError, match=message):
        scored(dataclasses.replace(settings, **change))


# -------------------------------------------------------------------------------------------------------- inputs


def copied(folder: Path, *inputs: str, without: Address | None = None) -> list[str]:
    addresses = copies.addresses_of(inputs)
    assert addresses is not None
    found = copies.copy_inputs(addresses, OwnPath(folder), without, {})
    return [str(Path(each).relative_to(folder)) for each in found.arguments]


@pytest.fixture
def objects(shop: Path) -> FolderStore:
    store = FolderStore(shop / "shop")
    for name in (
        "d/a.csv",
        "d/b.csv.gz",
        "d/.hidden.csv",
        "d/_SUCCESS",
        "d/x/c.parquet",
        "d/_tmp/d.csv",
        "d/readme.md",
        "e.csv",
    ):
        store.put(name, b"text\nx\n")
    return store


def test_what_an_address_means_is_what_a_path_would(objects: FolderStore, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert copied(there, "s3://shop/d") == ["s3/shop/d"]
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()) == [
        "s3/shop/d/a.csv",
        "s3/shop/d/b.csv.gz",
        "s3/shop/d/x/c.parquet",
    ]
    assert copied(tmp_path / "1", "s3://shop/e.csv", "s3://shop/d/a.csv") == [
        "s3/shop/e.csv",
        "s3/shop/d/a.csv",
    ]
    assert copied(tmp_path / "2", "s3://shop/d/?.csv*") == ["s3/shop/d/a.csv", "s3/shop/d/b.csv.gz"]
    assert copied(tmp_path / "3", "s3://shop/**/[ac].*") == ["s3/shop/d/a.csv", "s3/shop/d/x/c.parquet"]
    run = Address("s3", "shop", "d/x")
    assert copied(tmp_path / "4", "s3://shop/d/*/*", "s3://shop/e.csv", without=Address("s3", "shop", "f"))
    with pytest.raises(NoInputError, match="No such input"):
        copied(tmp_path / "5", "s3://shop/d/*/*.parquet", without=run)
    for nothing in ("s3://shop/none", "s3://shop/d/*.none", "s3://shop/d/_tmp/x"):
        with pytest.raises(NoInputError, match="No such input"):
            copied(tmp_path / "6", nothing)
    with pytest.raises(NoInputError, match="lies in the run folder"):
        copied(tmp_path / "7", "s3://shop/d/x/c.parquet", without=run)


def test_an_object_that_changes_while_it_is_copied_is_refused(
    objects: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = FolderStore.open

    def changing(self: FolderStore, name: str, version: Version | None = None) -> Any:
        objects.put("d/a.csv", b"text\nothers\n")
        return opened(self, name, version)

    monkeypatch.setattr(FolderStore, "open", changing)
    with pytest.raises(DataError, match=r"d/a\.csv in .* changed while it was being copied"):
        copied(tmp_path / "x", "s3://shop/d/a.csv")


@pytest.mark.parametrize("mark", ["t/_delta_log/0.json", "t/.hoodie/x", "t/metadata/v1.metadata.json"])
@pytest.mark.parametrize("given", ["t", "t/day=1/*.csv", "t/day=1/x.csv"])
def test_files_of_a_table_with_a_log_are_refused(
    mark: str, given: str, shop: Path, settings: ScoreSettings
) -> None:
    store = FolderStore(shop / "shop")
    store.put("t/day=1/x.csv", b"text\nx\n")
    store.put(mark, b"{}")
    with pytest.raises(DataError, match=r"s3://shop/t is a.* table"):
        scored(dataclasses.replace(settings, inputs=(f"s3://shop/{given}",)))


def test_a_dry_run_writes_nothing(
    objects: FolderStore, shop: Path, settings: ScoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    before = content(objects)
    with caplog.at_level(logging.INFO):
        planned = scored(dataclasses.replace(settings, inputs=("s3://shop/e.csv",), dry_run=True))
    assert (planned.status, planned.rows) == ("planned", 1)
    assert content(objects) == before


def test_messages_name_the_address_and_not_the_copy(shop: Path, settings: ScoreSettings) -> None:
    FolderStore(shop / "shop").put("in/bad.parquet", b"PAR1 cut short")
    with pytest.raises(DataError) as caught:
        scored(dataclasses.replace(settings, inputs=("s3://shop/in/bad.parquet",)))
    assert "s3://shop/in/bad.parquet" in str(caught.value)
    assert "scratch" not in str(caught.value)


def test_a_scratch_folder_of_somebody_else_is_refused(
    shop: Path, settings: ScoreSettings, scratch: Path
) -> None:
    digest = hashlib.sha256(str(settings.bucket).encode()).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        import os

        link = scratch / f"batchscore-{os.getuid()}-{digest}"
        link.symlink_to(scratch.parent)
        stack.callback(link.unlink)
        with pytest.raises(OutputError, match="it is a link"):
            scored(settings)
