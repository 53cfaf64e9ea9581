"""Storage as a protocol: a folder and a bucket keep the same promises; a lease holds, is taken over, and is lost."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_buckets import SECRET, Proxy, sometimes

from batchscore.addresses import Address
from batchscore.errors import BusyError, OutputError, StorageError, UsageError
from batchscore.system import buckets, leases
from batchscore.system.buckets import BucketStore
from batchscore.system.leases import Lease
from batchscore.system.own_paths import OwnPath
from batchscore.system.stores import ChangedError, FolderStore, Store, Version, bytes_of


@pytest.fixture(params=["folder", "bucket", "bucket-that-breaks"])
def store(request: pytest.FixtureRequest, tmp_path: Path, proxy: Proxy) -> Iterator[Store]:
    if request.param == "folder":
        yield FolderStore(tmp_path)
        return
    proxy.plan = sometimes(0.3, seed=7) if request.param.endswith("breaks") else lambda *_: ""
    yield BucketStore(Address("s3", "reviews", tmp_path.name))
    proxy.plan = lambda *_: ""


def test_what_is_put_is_there(store: Store, tmp_path: Path) -> None:
    (tmp_path / "beside").write_bytes(b"x" * 3_000_000)
    file = OwnPath(tmp_path) / "beside"
    store.put("a/größe %20 #1.csv", b"one")
    version = store.put("a/b/two", file)
    store.put("a/b/two", file)
    assert [(each.name, each.size) for each in store.list("a")] == [
        ("a/b/two", 3_000_000),
        ("a/größe %20 #1.csv", 3),
    ]
    assert bytes_of(store, "a/b/two") == b"x" * 3_000_000
    assert version.e_tag
    store.delete("a/b/two")
    store.delete("a/b/two")
    assert [each.name for each in store.list("a")] == ["a/größe %20 #1.csv"]
    assert not list(store.list("none"))
    with pytest.raises(FileNotFoundError), store.open("a/b/two"):
        pass


def test_one_of_many_creates_a_name(store: Store) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        with contextlib.suppress(FileExistsError):
            store.create("lock", f"{number}".encode())
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(won) == 1
    assert bytes_of(store, "lock") == f"{won[0]}".encode()
    assert store.create("lock", bytes_of(store, "lock")), (
        "the same bytes again are success: an answer may be lost"
    )


def test_what_was_written_since_is_not_replaced(store: Store) -> None:
    first = store.create("name", b"one")
    second = store.replace("name", b"second", first)
    assert store.replace("name", b"second", first), "the same bytes again are success"
    with pytest.raises(ChangedError):
        store.replace("name", b"third", first)
    with pytest.raises((ChangedError, FileNotFoundError)):
        store.replace("none", b"x", first)
    with pytest.raises(ChangedError), store.open("name", first):
        pass
    assert bytes_of(store, "name", second) == b"second"


# ------------------------------------------------------------------------------------------------------- leases


def test_a_lease_is_held_by_one_and_given_back(store: Store) -> None:
    with Lease(store, ".staging") as first:
        first.assert_held()
        with pytest.raises(BusyError, match=r"Another run holds .* \(process"):
            Lease(store, ".staging").__enter__()
        first.assert_held()
    assert not list(store.list(".staging"))
    with Lease(store, ".staging") as again:
        again.assert_held()


@pytest.fixture
def shop(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_a_holder_of_this_machine_that_is_gone_is_known_at_once(shop: FolderStore) -> None:
    with Lease(shop, "x"):
        note = json.loads(bytes_of(shop, "x/lock.json"))
    shop.create(
        "x/lock.json", json.dumps({**note, "began": "1"}).encode()
    )  # its number is another process's by now
    with Lease(shop, "x"):
        assert json.loads(bytes_of(shop, "x/lock.json"))["holder"] != note["holder"]


def test_what_a_start_that_was_killed_while_it_probed_has_left_is_removed(
    shop: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what one leaves that goes on: it would take its own key for proof that the store keeps no conditions."""
    with monkeypatch.context() as patch:
        patch.setattr(shop, "delete", lambda _: None)
        living, killed = Lease(shop, "x"), Lease(shop, "x")
        living._probe()
        patch.setattr(leases, "_beginning_of", lambda _: "another process")
        killed._probe()
    assert len(list(shop.list("x"))) == 2
    with Lease(shop, "x"):
        assert {each.name for each in shop.list("x")} == {"x/lock.json", f"x/probe-{living._holder}"}


def test_a_holder_elsewhere_is_waited_for_until_its_lease_is_over(shop: FolderStore) -> None:
    with Lease(shop, "x"):
        note = json.loads(bytes_of(shop, "x/lock.json"))
    shop.create("x/lock.json", json.dumps({**note, "machine": "another", "seconds": 100.0}).encode())
    with pytest.raises(BusyError, match=r"its lease ends within 1\d\d s"):
        Lease(shop, "x").__enter__()
    lock = next(each for each in shop.list("x"))
    shop.replace(
        "x/lock.json", json.dumps({**note, "machine": "another", "seconds": -1.0}).encode(), lock.version
    )
    with Lease(shop, "x") as lease:
        lease.assert_held()


@pytest.mark.parametrize("note", [b"", b"{", b'{"pid": 1}', b"x" * 10_000])
def test_a_damaged_lock_is_held_until_the_longest_lease_is_over(
    note: bytes, shop: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.create("x/lock.json", note)
    with pytest.raises(BusyError, match="damaged"):
        Lease(shop, "x").__enter__()
    monkeypatch.setattr(leases, "LEASE_SECONDS", -1.0)
    lease = Lease(shop, "x")
    monkeypatch.setattr(lease, "_renew_until_ended", lambda: None)
    with lease:
        assert json.loads(bytes_of(shop, "x/lock.json"))["pid"]


def test_a_paused_holder_that_wakes_after_its_lease_writes_no_more(
    shop: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(leases, "_seconds", lambda: now[0])
    paused = Lease(shop, "x")
    monkeypatch.setattr(paused, "_renew_until_ended", lambda: None)
    with paused:
        now[0] += 1000
        paused.assert_held()  # nobody took it meanwhile
        now[0] += 1000
        lock = next(each for each in shop.list("x"))
        shop.replace("x/lock.json", b"of another", lock.version)
        for _ in range(2):
            with pytest.raises(BusyError, match="another run may hold it"):
                paused.assert_held()
    assert bytes_of(shop, "x/lock.json") == b"of another", "nor does it give away what it lost"


def test_a_renewal_whose_answer_was_lost_is_no_loss(
    shop: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, replace = Lease(shop, "x"), shop.replace
    monkeypatch.setattr(lease, "_renew_until_ended", lambda: None)

    def losing(name: str, content: bytes, version: Version) -> Version:
        replace(name, content, version)
        raise StorageError("the answer was lost")

    with lease:
        monkeypatch.setattr(shop, "replace", losing)
        with pytest.raises(StorageError):
            lease._renew()
        monkeypatch.setattr(shop, "replace", replace)
        lease._renew()
        lease.assert_held()


def test_a_store_that_keeps_no_conditions_is_refused(proxy: Proxy, tmp_path: Path) -> None:
    proxy.plan = lambda *_: "unconditional"
    store = BucketStore(Address("s3", "reviews", tmp_path.name))
    with pytest.raises(OutputError, match="lets two create one key"):
        Lease(store, "x").__enter__()
    assert not list(store.list())


# ------------------------------------------------------------------------------------------------------ failures


def test_what_is_denied_is_told_without_what_the_store_said(proxy: Proxy) -> None:
    proxy.plan = lambda *_: "denied"
    try:
        store = BucketStore(Address("s3", "reviews", "x"))
        for call in (lambda: list(store.list()), lambda: store.put("a", b"x"), lambda: bytes_of(store, "a")):
            with pytest.raises(
                StorageError, match=r"s3://reviews/x.*permission denied.*AccessDenied"
            ) as caught:
                call()
            assert SECRET not in str(caught.value)
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__
    finally:
        proxy.plan = lambda *_: ""


def test_a_missing_bucket_and_a_missing_extra_are_told(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="NoSuchBucket"):
        list(BucketStore(Address("s3", "nowhere")).list())
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    buckets.client_of.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'batchscore\[cloud\]'"):
        BucketStore(Address("s3", "reviews"))
