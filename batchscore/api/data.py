"""What ``data`` is: paths, as the command takes them, or tables, which become files for as long as the call lasts."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batchscore.api.options import PathLike, local_path
from batchscore.api.tables import Table, table_of
from batchscore.errors import NoInputError, UsageError, printable, shown_as
from batchscore.system.locks import locked
from batchscore.system.own_paths import OwnPath, own
from batchscore.system.storage import remove_tree

if TYPE_CHECKING:
    import pandas as pd

_NAME = "table"
_SPLIT = re.compile(r"\w[\w.-]*")
_ADDRESS = "://"


class ArrowStream(Protocol):
    """A table by the Arrow PyCapsule interface, such as a Polars ``DataFrame`` or a ``pyarrow.Table``."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule with a stream of its batches."""
        ...


if TYPE_CHECKING:
    Data = PathLike | Iterable[PathLike] | ArrowStream | pd.DataFrame
    """Paths or a table; a ``datasets.Dataset`` is one too."""


class Files:
    """``data`` as arguments of the command; of a table, as the file that it becomes within :meth:`there`."""

    def __init__(self, tables: Mapping[Path, Table], arguments: tuple[str, ...]) -> None:
        self._tables = tables
        self.arguments = arguments

    @property
    def table(self) -> Table | None:
        """The table, if ``data`` is one."""
        return next(iter(self._tables.values()), None)

    def with_table(self, table: Table) -> Files:
        """The same with another table in its place."""
        return Files(dict.fromkeys(self._tables, table), self.arguments)

    @contextlib.contextmanager
    def there(self, name: str = "data") -> Iterator[None]:
        """Keep the tables as files, in a locked folder, until the end of the block; messages say ``name`` for them.

        Raises:
            BusyError: another call has the same output.
            DataError: a table that cannot be written as a file.
            OutputError, StorageError: the folder cannot be made, or written to.
        """
        if not self._tables:
            yield
            return
        (folder,) = {own(path.parent) for path in self._tables}
        was_left = folder.exists()  # by a call that was killed; else it goes with the lock
        with locked(folder):
            try:
                _spool(self._tables, folder)
                with self._shown_as(name):
                    yield
            finally:
                _empty(folder)
                if was_left:
                    folder.rmdir()

    @contextlib.contextmanager
    def _shown_as(self, name: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for path in self._tables:
                is_split = str(path) not in self.arguments
                stack.enter_context(shown_as(path, f"{name}[{path.stem!r}]" if is_split else name))
            for argument in self.arguments:
                stack.enter_context(shown_as(Path(argument), name))
            yield


def _spool(tables: Mapping[Path, Table], folder: OwnPath) -> None:
    from batchscore.formats.spooling import spool

    for path, table in tables.items():
        spool(table.schema, table.batches(), folder / path.name)


def _empty(folder: OwnPath) -> None:
    """Remove what this call, or one that was killed, left in the folder."""
    for name in folder.names():
        remove_tree(folder / name)


def files_of(data: Any, folder: Path) -> Files:
    """The inputs that ``data`` is; its table, if it is one, will be in ``folder``.

    Raises:
        DataError: a table that cannot be written as a file.
        NoInputError: an empty list, or one of texts none of which is a path.
        UsageError: neither paths nor a table.
    """
    if isinstance(data, str | os.PathLike):
        return Files({}, (local_path(data),))
    if (table := table_of(data)) is not None:
        return _as_file(table, folder, _NAME)
    if isinstance(data, Mapping):
        names = ", ".join(map(printable, data))
        raise UsageError(
            f"data is a {type(data).__name__} of {len(data)} ({names[:200]}). Give one of its tables, data[name]; or make one of "
            "columns, for example pandas.DataFrame(data)."
        )
    return Files({}, _paths(data))


def splits_of(data: Any, folder: Path) -> Files:
    """The same for training: a dictionary of tables, such as a ``datasets.DatasetDict``, is a folder of splits."""
    if not isinstance(data, Mapping):
        files = files_of(data, folder)
        if len(files.arguments) != 1:
            raise UsageError(
                f"Training takes one path: a file, a folder or a name; data has {len(files.arguments)}."
            )
        return files
    tables: dict[Path, Table] = {}
    for name, each in data.items():
        table = table_of(each)
        if table is None or not isinstance(name, str) or not _SPLIT.fullmatch(name):
            raise UsageError(
                "data is a dictionary, and not of split names ('train', 'test') and tables. Make one table of columns, for "
                "example pandas.DataFrame(data)."
            )
        tables.update(_as_file(table, folder, name)._tables)
    if not tables:
        raise NoInputError("data is an empty dictionary.")
    return Files(tables, (str(folder),))


def _as_file(table: Table, folder: Path, name: str) -> Files:
    from batchscore.formats.spooling import spooled_name

    path = folder / spooled_name(name)
    return Files({path: table}, (str(path),))


def _paths(data: Any) -> tuple[str, ...]:
    if isinstance(data, bytes) or not isinstance(data, Iterable):
        raise UsageError(f"data is a {type(data).__name__}: neither a path nor paths nor a table.")
    given = list(data)
    if not all(isinstance(each, str | os.PathLike) for each in given):
        strange = next(type(each).__name__ for each in given if not isinstance(each, str | os.PathLike))
        raise UsageError(
            f"data is a {type(data).__name__} with a {strange} in it, and not of paths. Make a table of it, for example "
            "pandas.DataFrame(data)."
        )
    paths = tuple(map(local_path, given))
    if not paths:
        raise NoInputError("data is empty: there is no path in it.")
    if any(len(text.split()) > 1 for text in paths) and not any(map(_may_be_path, paths)):
        raise NoInputError(  # names none of them: they may be reviews
            f"None of the {len(paths)} texts in data is the path of a file or a folder. To score the texts themselves, make a table "
            "of them: pandas.DataFrame({'text': data})."
        )
    return paths


def _may_be_path(text: str) -> bool:
    """Whether a text leads anywhere, or is an address, of which the command says that it takes none."""
    try:
        return os.path.exists(text) or _ADDRESS in text or (glob.has_magic(text) and bool(glob.glob(text)))  # noqa: PTH110, PTH207
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def folder_of_tables(output: PathLike) -> Path:
    """The hidden folder beside an output for tables as files: the same for the same output, so that a run can go on."""
    path = Path(os.path.abspath(local_path(output)))  # noqa: PTH100 - links keep their own name
    return path.with_name(f".{path.name}.data")
