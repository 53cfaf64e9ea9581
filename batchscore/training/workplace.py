"""Where a bundle grows: a hidden folder beside the output, until the whole bundle takes its final name.

A training that was killed, stopped by a signal or by a full disk leaves the folder with its checkpoints; ``--resume``
goes on from there if settings, data and base model are the same (:func:`begin`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from batchscore.errors import InterruptedRunError, OutputError, StorageError, printable, storage_error
from batchscore.model.bundle_facts import FACTS
from batchscore.system.storage import (
    locked,
    make_folder,
    read_checked,
    remove_tree,
    sync_folder,
    sync_tree,
    write_checked,
)

_STARTED = "started.json"


class OtherTrainingError(OutputError):
    """What was left to go on from belongs to a training with other settings or data."""


@contextlib.contextmanager
def workplace(output: Path, force: bool, resume: bool) -> Iterator[Path]:
    """Yield a folder on the output's file system; it is gone when the block ends, unless it was stopped on its way.

    What a stopped training left there is removed first, unless it is to be resumed.

    Raises:
        BusyError: another training is about to write the same output.
        OutputError: the output cannot be made, or holds something that may not be replaced.
    """
    assert_replaceable(output, force)
    make_folder(output.parent)
    work = output.parent / f".{output.name}.training"
    make_folder(work)
    with locked(work):
        is_kept = False
        try:
            if not resume:
                for left_over in work.iterdir():
                    remove_tree(left_over) if left_over.is_dir() else left_over.unlink()
            yield work
        except (InterruptedRunError, KeyboardInterrupt, StorageError, OtherTrainingError):
            is_kept = any(path.is_file() and path.name != _STARTED for path in work.rglob("*"))
            raise
        finally:
            if not is_kept:
                remove_tree(work)


def begin(work: Path, fingerprint: str, precision: Callable[[], str]) -> tuple[str, bool]:
    """Note what training this folder is for; returns its precision, and whether it goes on from what was there.

    ``fingerprint`` is over all that the result follows from. The precision is measured once, since a machine may be
    busier the next time.

    Raises:
        OtherTrainingError: what is there was left by a training of another fingerprint.
    """
    started = read_checked(work / _STARTED)
    if started is not None and started["fingerprint"] != fingerprint:
        raise OtherTrainingError(
            f"{printable(work)} was left by a training with other settings, data, base model or versions, which --resume "
            "cannot go on with. Give the same ones, or start over without --resume."
        )
    if started is not None:
        return str(started["precision"]), True
    chosen = precision()
    write_checked(work / _STARTED, {"fingerprint": fingerprint, "precision": chosen})
    return chosen, False


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
        sync_tree(bundle)
        assert_replaceable(output, force)
        before = bundle.with_name("before")
        if output.exists():
            remove_tree(before)  # of a training that was killed right here
            output.rename(before)
        bundle.rename(output)
        sync_folder(output.parent)
    except OSError as error:
        raise storage_error("Putting in place", output, error) from error
