"""The folder of an evaluation: where it is, what may be there before, and how a new one takes the place of the old one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import BatchscoreError, OutputError, UsageError, printable
from batchscore.runs.as_written import changes_in, told
from batchscore.runs.folder import (
    DAMAGE,
    EVALUATION,
    FACTS,
    LABELS,
    MANIFEST,
    RunFolder,
    read_run,
)
from batchscore.system.locks import locked
from batchscore.system.own_paths import OwnPath, own
from batchscore.system.storage import (
    await_clock,
    files_below,
    make_folder,
    manifest,
    remove_tree,
    sha256_of,
    sync_folder,
    write_bytes,
)

_WORK = ".work"
"""Behind the evaluation's name, and a dot before it: where it is built."""
_BEFORE = "before"
"""In there: the old one, where the system cannot exchange two folders at once."""


def evaluation_of(run: Path) -> Path:
    """The folder of a run's evaluation, if nothing else is said; of a link to a run, beside the run itself.

    >>> str(evaluation_of(Path("runs/2026-11-23")))
    'runs/2026-11-23.evaluation'
    """
    whole = run.absolute() if run.name in {"", ".."} else run
    if run.is_symlink():
        whole = Path(os.path.realpath(run))
    return whole.with_name(whole.name + EVALUATION)


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """The folder of an evaluation, and the one beside it in which the next is built."""

    place: OwnPath
    work: OwnPath

    @property
    def final(self) -> OwnPath:
        """Where the files of the next one are built."""
        return self.work / "final"

    def before(self, run: Path, sealed: str, *, force: bool) -> RunFolder | None:
        """The earlier evaluation of this run, whose labels count; None if there is none."""
        place, where = self.place, printable(self.place)
        if not place.exists() or (place.is_folder() and not place.names()) or force:
            self._refuse_foreign()
            return None
        self._refuse_foreign()
        try:
            before = read_run(place)
            evaluates = before.facts["evaluates"]
            problems = changes_in(place)
        except (*DAMAGE, BatchscoreError) as error:
            raise OutputError(
                f"{where} is damaged: {printable(error)}. Add --force to begin anew, with all labels so far."
            ) from error
        if problems:
            raise OutputError(
                f"{where} is not as it was written: {told(problems)}. Add --force to begin anew, with all labels so far, or name "
                "another --output."
            )
        if evaluates["manifest"] != sealed:
            raise OutputError(
                f"{where} is the evaluation of another run than {printable(run)}, or of what it held before it was scored "
                "again. Add --force to begin anew, with all labels so far, or name another --output."
            )
        return before

    def _refuse_foreign(self) -> None:
        """Refuse to replace what is no evaluation, even with ``--force``."""
        place = self.place
        if not place.exists() or (place.is_folder() and not place.names()):
            return
        is_one = False
        with contextlib.suppress(*DAMAGE):
            is_one = place.is_folder() and (place / LABELS).exists() and (place / FACTS).exists()
        if not is_one:
            raise OutputError(
                f"{printable(place)} holds something that is no evaluation. Name another --output."
            )

    def put_in_place(self) -> None:
        """Seal the new evaluation, and let it take the place of the old one, both whole at any time."""
        final, place = self.final, self.place
        hashes = {name: sha256_of(final / name) for name in files_below(final)}
        await_clock(*[final / name for name in hashes])
        write_bytes(final / MANIFEST, manifest(hashes))
        sync_folder(final)
        if not place.exists():
            final.replace(place)
        elif not final.exchange(place):
            place.replace(self.work / _BEFORE)
            final.replace(place)
        sync_folder(place.parent)


@contextlib.contextmanager
def held(output: Path, run: Path) -> Iterator[EvaluationFolder]:
    """The folder ``output`` of an evaluation of ``run``, with an empty one beside it, which is locked and removed at the end.

    Raises:
        UsageError: it would be in the run itself.
        BusyError: another call has it.
    """
    if output.resolve().is_relative_to(run.resolve()):
        raise UsageError(
            f"--output {printable(output)} is in the run itself, whose files are sealed. Name a folder beside it."
        )
    make_folder(output.parent)
    place = own(output)
    work = place.with_name(f".{place.name}{_WORK}")
    with locked(work):
        if not place.exists() and (work / _BEFORE).exists():
            (work / _BEFORE).replace(place)  # a call was killed in between
        for name in work.names():
            remove_tree(work / name)
        try:
            yield EvaluationFolder(place, work)
        finally:
            with contextlib.suppress(BatchscoreError, OSError):
                remove_tree(work)
