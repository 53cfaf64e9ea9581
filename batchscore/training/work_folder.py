"""The work folder of a training: a hidden folder beside the output, until the finished bundle takes its final name.

A training that is killed, or stopped by a signal or a full disk, leaves the folder with its checkpoints; ``--resume``
continues from them if settings, data and base model are the same (:func:`begin`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from batchscore.errors import InterruptedRunError, OutputError, StorageError, printable, storage_error
from batchscore.model.bundle_facts import FACTS
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.locks import locked
from batchscore.system.names import is_utf8
from batchscore.system.own_paths import OwnPath, own, refuse_strange_below
from batchscore.system.storage import remove_tree, sync_folder, sync_tree

_STARTED = "started.json"


class OtherTrainingError(OutputError):
    """The work folder belongs to a training with other settings or data."""


@contextlib.contextmanager
def work_folder(output: Path, force: bool, resume: bool) -> Iterator[Path]:
    """Yield a folder on the output's file system; it is removed at the end of the block, unless that was stopped.

    Files of a stopped training are removed first, unless it is to be resumed.

    Raises:
        BusyError: another training is writing the same output.
        OutputError: the output cannot be created, has a path that is not UTF-8, or holds something that may not be replaced.
    """
    if not is_utf8(output):
        raise OutputError(f"{printable(output)}: the path of a model must be UTF-8. Name another --output.")
    assert_replaceable(output, force)
    work = OwnPath(output.parent) / f".{output.name}.training"
    with locked(work):
        is_kept = True
        try:
            _take_over(work, resume)
            is_kept = False
            yield work.path
        except (InterruptedRunError, KeyboardInterrupt, StorageError, OtherTrainingError):
            is_kept = any(entry.is_file and entry.name != _STARTED for entry in work.walk())
            raise
        finally:
            if not is_kept:
                remove_tree(work)


def _take_over(work: OwnPath, resume: bool) -> None:
    """Have the folder to ourselves, as libraries write into it by names, and leave in it what is to be resumed or nothing."""
    try:
        work.keep_to_ourselves()
        if resume:
            refuse_strange_below(work)
            return
        for name in work.names():
            remove_tree(work / name)
    except OSError as error:
        raise storage_error("Reading or writing", error.filename or work, error) from error


def begin(work: Path, fingerprint: str, precision: Callable[[], str]) -> tuple[str, bool]:
    """Record which training the folder belongs to; returns its precision, and whether it is resumed.

    ``fingerprint`` covers everything that determines the result. The precision is measured only once, as a machine may be
    busier the next time.

    Raises:
        OtherTrainingError: the folder is of a training with another fingerprint.
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
    """Turn disk errors, as libraries report them, into a :class:`StorageError`."""
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


def publish_bundle(bundle: Path, output: Path, force: bool) -> None:
    """Sync the bundle, then rename it to its final name; with ``force`` it replaces what was there."""
    try:
        sync_tree(bundle)
        assert_replaceable(output, force)
        made, final = own(bundle), own(output)
        before = made.with_name("before")
        if final.exists():
            remove_tree(before)  # left by a training that was killed right here
            final.replace(before)
        made.replace(final)
        sync_folder(final.parent)
    except OSError as error:
        raise storage_error("Putting in place", output, error) from error
