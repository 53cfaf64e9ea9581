"""The champion: a link to the bundle that the nightly job names, moved as a whole, with the one before kept beside it.

``models/champion -> bundles/2026-11`` is what jobs name as their ``--model``. To move it, a new link is made beside it and renamed to
its name, so that whoever looks sees the old one or the new one and never none. ``champion.previous`` leads to the one before.
Both names, and the new link's, lie in the link's own folder and are used below its handle (:mod:`batchscore.system.own_paths`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from batchscore.errors import BusyError, ModelError, NoInputError, OutputError, printable, storage_error
from batchscore.system.locks import locked
from batchscore.system.own_paths import OwnPath, own, own_folder
from batchscore.system.storage import sync_folder

PREVIOUS = ".previous"
"""After the link's name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Champion:
    """A link to a bundle; whoever changes it holds its lock (:meth:`held`)."""

    link: OwnPath

    @classmethod
    def at(cls, path: Path, *, may_lead_nowhere: bool = False) -> Champion:
        """The link that the user named.

        Raises:
            NoInputError: there is nothing.
            OutputError: it is a folder or a file, which cannot be replaced by another in one step.
            ModelError: it leads nowhere, and may not.
        """
        link = own(Path(os.path.abspath(path)))  # noqa: PTH100 - a link itself is not followed
        if not link.exists():
            raise NoInputError(
                f"--over {printable(path)}: there is no such link. Make one to the bundle that your jobs use: ln -s BUNDLE "
                f"{printable(path)}"
            )
        if link.is_folder() or link.is_file():
            raise OutputError(
                f"--over {printable(path)} is no link, so it could not be moved to another bundle in one step. Make it one, while no "
                f"job runs: mv {printable(path)} {printable(path)}-1 && ln -s {printable(path.name)}-1 {printable(path)}"
            )
        champion = cls(link)
        if not may_lead_nowhere and not champion.folder.is_dir():
            raise ModelError(
                f"--over {printable(path)} leads to {printable(champion.target)}, which is no folder."
            )
        return champion

    @property
    def target(self) -> str:
        """What it leads to, as it is written in the link."""
        return self.link.read_link()

    @property
    def folder(self) -> Path:
        """The bundle itself."""
        return Path(os.path.realpath(self.link.path))

    @property
    def previous(self) -> OwnPath:
        """The link to the bundle before."""
        return self.link.with_name(self.link.name + PREVIOUS)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the link's folder.

        Raises:
            BusyError: another process holds it.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(own_folder(self.link.root)))
            except BusyError as error:
                raise BusyError(
                    f"Another promotion holds {printable(self.link.root)}. Try again when it has ended."
                ) from error
            yield

    def move(self, folder: Path) -> None:
        """Let it lead to another bundle; the one before becomes the previous one first, so that a kill between loses neither.

        Raises:
            StorageError: a link cannot be made; both are as they were, or only the previous one was moved.
        """
        before = self.target
        self._put(self.previous, before)
        self._put(self.link, self._spelled(folder))

    def move_back(self) -> str:
        """Exchange it with the previous one; returns what it leads to now.

        Raises:
            NoInputError: there is no previous one.
            StorageError: a link cannot be made.
        """
        before, target = self.target, self.target_before()
        self._put(self.link, target)
        self._put(self.previous, before)
        return target

    def target_before(self) -> str:
        """What the previous link leads to.

        Raises:
            NoInputError: there is none.
        """
        try:
            return self.previous.read_link()
        except OSError as error:
            raise NoInputError(
                f"There is no link {printable(self.previous)}, so that there is nothing to go back to."
            ) from error

    def folder_of(self, target: str) -> Path:
        """The bundle that a link beside this one leads to."""
        return Path(os.path.realpath(self.link.root / target))

    def _spelled(self, folder: Path) -> str:
        """A bundle beside the link by its name, so that both can be moved together; any other by its whole path."""
        root, folder = Path(os.path.realpath(self.link.root)), Path(os.path.realpath(folder))
        return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)

    def _put(self, link: OwnPath, target: str) -> None:
        new = link.with_name(f".{link.name}.new")
        try:
            new.unlink(missing_ok=True)  # of a killed promotion
            new.make_link(target)
            new.replace(link)
            sync_folder(own_folder(link.root))
        except OSError as error:
            raise storage_error("Moving the link", link, error) from error
