"""Where a bundle grows: a hidden folder beside the output, until the whole bundle takes its final name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from batchscore.bundle import FACTS
from batchscore.errors import OutputError, StorageError, printable, storage_error
from batchscore.storage import locked, make_folder, remove_tree, sync_folder


@contextlib.contextmanager
def workplace(output: Path, force: bool) -> Iterator[Path]:
    """Yield an empty folder on the output's file system; it is gone when the block ends, however it ends.

    What a killed training left there is removed first.

    Raises:
        BusyError: another training is about to write the same output.
        OutputError: the output cannot be made, or holds something that may not be replaced.
    """
    assert_replaceable(output, force)
    make_folder(output.parent)
    work = output.parent / f".{output.name}.training"
    make_folder(work)
    with locked(work):
        try:
            for left_over in work.iterdir():
                remove_tree(left_over) if left_over.is_dir() else left_over.unlink()
            yield work
        finally:
            remove_tree(work)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full disk and its like, as libraries report them, into a :class:`StorageError`."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise storage_error("Writing below", folder, error) from error
    except SafetensorError as error:
        raise StorageError(f"Writing below {printable(folder)} failed: {printable(error)}.") from error


def assert_replaceable(output: Path, force: bool) -> None:
    """Raise :class:`OutputError` unless ``output`` is free, an empty folder, or, with ``force``, a saved model."""
    try:
        held = sorted(path.name for path in output.iterdir()) if output.is_dir() else None
    except OSError as error:
        raise OutputError(f"{printable(output)} cannot be read: {error.strerror}.") from error
    if held is None and not output.exists() and not output.is_symlink():
        return
    if held is None:
        raise OutputError(f"{printable(output)} is not a folder. Name another --output.")
    if held and not force:
        raise OutputError(
            f"{printable(output)} holds something already ({printable(', '.join(held[:3]))}). Name another --output, or "
            "replace it with --force."
        )
    if held and not {FACTS, "config.json"} & set(held):
        raise OutputError(
            f"{printable(output)} holds no saved model ({printable(', '.join(held[:3]))}), so --force does not remove it. "
            "Name another --output."
        )


def put_in_place(bundle: Path, output: Path, force: bool) -> None:
    """Make every byte durable, then give the bundle its final name; what ``force`` replaces goes last."""
    try:
        _sync_tree(bundle)
        assert_replaceable(output, force)
        before = bundle.with_name("before")
        if output.exists():
            output.rename(before)
        bundle.rename(output)
        sync_folder(output.parent)
    except OSError as error:
        raise storage_error("Putting in place", output, error) from error


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
