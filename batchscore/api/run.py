"""A finished run as a Python object: its predictions, mismatches, metrics and page, and how a notebook shows them."""

from __future__ import annotations

import functools
import html
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.addresses import Address, address_in
from batchscore.api.indexes import in_types, with_index
from batchscore.api.options import PathLike, local_path
from batchscore.api.page import Page, mismatches_in
from batchscore.errors import DataError, NoInputError, UsageError, printable, shown_below
from batchscore.runs.folder import (
    DAMAGE,
    PAGE,
    RunFolder,
    RunState,
    check_run,
    read_run,
    state_of,
)
from batchscore.runs.headlines import headline_of
from batchscore.runs.refusals import read_refusal
from batchscore.system.own_paths import OwnPath

if TYPE_CHECKING:
    from typing import Unpack

    import pyarrow as pa

    from batchscore.api.data import Data
    from batchscore.api.evaluating import Evaluation
    from batchscore.api.options import EvaluateOptions


class TemporaryFolder:
    """A folder that is removed with the last object that has it, or when the interpreter ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="batchscore-"))
        self.remove = weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a process that was forked meanwhile
        shutil.rmtree(folder, ignore_errors=True)


class Run:
    """A finished run; what it holds is read from its folder when it is asked for."""

    def __init__(
        self,
        output: PathLike,
        status: str,
        *,
        rows: int,
        rejects: int,
        metrics: Mapping[str, Any],
        temporary: TemporaryFolder | None = None,
        index: pa.Schema | None = None,
    ) -> None:
        self.output = Path(os.path.abspath(output))  # noqa: PTH100 - the same wherever the program goes
        """The run folder."""
        self.status = status
        """``scored``, ``done`` (it was finished before) or ``planned`` (``dry_run=True``)."""
        self.rows = rows
        """Rows read, rejects included."""
        self.rejects = rejects
        """Rows that could not be read; ``rejects.jsonl`` in the run folder lists them."""
        self.metrics = dict(metrics)
        """``metrics.json``: counts, quality, calibration, slices, drift, gates."""
        self.forecast: Mapping[str, Any] | None = None
        """With ``dry_run=True``: what the run would take (``tokens``, ``seconds``, ``memory_bytes`` and so on), if that was measured."""
        self._temporary = temporary
        self._index = index
        """That of the table that was scored, if it was one; most formats do not say which columns are the index."""

    @functools.cached_property
    def predictions(self) -> pa.Table:
        """Every row but the rejects, with the added columns: a ``pyarrow.Table``, read once and kept.

        Inputs and rows are in their order; with ``partition_by``, the rows of an input are in that of the partitions' names, and
        within one in their own. The rows of a table can be joined by its index all the same, which ``to_pandas()`` has again.

        Columns of Parquet and Arrow files have their types; those of CSV and JSON files are text, as they are there. Of several
        files with different columns, the table has all of them, null where a file has none, and text where their types differ.

        Raises:
            DataError, StorageError: a file is damaged or cannot be read.
        """
        return self.reader().read_all()

    def reader(self) -> pa.RecordBatchReader:
        """The same rows, a few thousand at a time: for runs that do not fit into memory.

        Raises:
            DataError, StorageError: as :attr:`predictions`, also later, from the batches.
        """
        import pyarrow as pa

        from batchscore.runs.prediction_files import common_schema, in_schema, predictions_of

        self._refuse_planned()
        try:
            files = predictions_of(self._folder())
        except DAMAGE as error:
            raise _damaged(self.output, error) from error
        described = [file for file in files if file.layout.columns] or files
        schema = common_schema([file.schema for file in described]) if files else pa.schema([])
        batches = (in_schema(batch, schema) for file in described for batch in file.batches())
        if self._index is None:
            return pa.RecordBatchReader.from_batches(schema, batches)
        own = with_index(schema, self._index, self._folder().options.get("renames") or {})
        return pa.RecordBatchReader.from_batches(own, (in_types(batch, own) for batch in batches))

    @functools.cached_property
    def mismatches(self) -> pa.Table | None:
        """Labelled rows whose prediction differs, likeliest label errors first: a ``pyarrow.Table``; None without labels.

        Raises:
            DataError, StorageError: the file is damaged or cannot be read.
        """
        self._refuse_planned()
        return mismatches_in(self.output)

    @property
    def report(self) -> Page:
        """The page of the run; in a notebook it shows itself, elsewhere ``report.path`` is to be opened."""
        self._refuse_planned()
        return Page(self.output / PAGE)

    @property
    def facts(self) -> Mapping[str, Any]:
        """``run.json``: inputs and their SHA-256, model, options, versions, seconds and rates."""
        self._refuse_planned()
        return self._folder().facts

    def _folder(self) -> RunFolder:
        try:
            return read_run(self.output)
        except DAMAGE as error:
            raise _damaged(self.output, error) from error

    def _refuse_planned(self) -> None:
        if self.status == "planned":
            raise UsageError("Nothing was scored: dry_run=True only plans. Leave it out.")

    def _told(self) -> Iterator[tuple[str, str]]:
        """What is said about the run in a few lines."""
        yield "status", self.status
        yield "rows", f"{self.rows:,}" + (f", {self.rejects:,} rejects" if self.rejects else "")
        if headline := headline_of(self.metrics):
            figure = str(headline)
            if figure:
                key, _, value = figure.partition(f"{headline.words} ")
                yield headline.words, value or key
        if (mismatches := self.metrics.get("mismatches")) is not None:
            yield "mismatches", f"{mismatches:,}"
        if missed := [gate["reason"] for gate in self.metrics.get("gates") or [] if not gate["passed"]]:
            yield "failed gates", "; ".join(missed)
        yield "output", str(self.output) + (" (temporary)" if self._temporary else "")

    def evaluate(
        self, labels: Data, output: PathLike | None = None, **options: Unpack[EvaluateOptions]
    ) -> Evaluation:
        """Measure this run with labels that came later: :func:`batchscore.evaluate` with its folder.

        Raises:
            BatchscoreError, TypeError: as that.
        """
        from batchscore.api.evaluating import evaluate

        self._refuse_planned()
        return evaluate(self.output, labels, output, **options)

    def __fspath__(self) -> str:
        """The path of the run folder, so that a run is a path too: ``baseline=run``."""
        return str(self.output)

    def __repr__(self) -> str:
        return f"<run: {', '.join(f'{name} {value}' for name, value in self._told())}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align: left">{html.escape(name)}</th><td style="text-align: left">{html.escape(value)}</td>'
            "</tr>"
            for name, value in self._told()
        )
        return f"<table>{rows}</table>"

    def __reduce__(self) -> tuple[Any, ...]:
        """A run in a folder of its own travels to another process as its path."""
        if self._temporary is not None:
            raise TypeError(
                "a temporary run goes with its object, and cannot be sent elsewhere; give it an output="
            )
        facts = (self.status, self.rows, self.rejects, json.dumps(self.metrics), self._index)
        return (_reopened, (str(self.output), *facts))


def _reopened(
    output: str, status: str, rows: int, rejects: int, metrics: str, index: pa.Schema | None
) -> Run:
    return Run(output, status, rows=rows, rejects=rejects, metrics=json.loads(metrics), index=index)


def open_run(path: PathLike) -> Run:
    """Open a finished run, after a check of every file in it.

    Raises:
        DataError: it has not finished, was refused, or a file is not as it was written; the message names it.
        NoInputError: there is no such folder, or it holds no run.
    """
    if (address := address_in(local_path(path))) is not None:
        return opened_there(address)
    output = Path(local_path(path))
    state = state_of(output)
    if state is RunState.NO_RUN:
        raise NoInputError(
            f"{printable(output)} is no run folder. Name the folder that was the output of a run."
        )
    if state is RunState.REFUSED:
        raise DataError(f"{printable(output)} holds no results: {_refusal(output)}")
    if state is RunState.UNFINISHED:
        raise DataError(
            f"{printable(output)} holds a run that has not finished. Score again with the same data, model and options to go on."
        )
    check_run(output)
    return run_of(output, "done")


def opened_there(address: Address, status: str = "done") -> Run:
    """The object of a finished run in a bucket: of a copy of it in a temporary folder, checked as :func:`open_run` does.

    Raises:
        BatchscoreError: as :func:`open_run`, and where the store fails.
    """
    from batchscore.runs.copies import copy_folder

    temporary = TemporaryFolder()
    try:
        copy = copy_folder(address, OwnPath(temporary.path)).path
        with shown_below(copy, str(address)):
            opened = open_run(copy)
        opened.status, opened._temporary = status, temporary
        return opened
    except BaseException:
        temporary.remove()
        raise


def run_of(output: Path, status: str) -> Run:
    """The object of a finished run whose files are as they were written.

    Raises:
        DataError: they are not those of a run of this version.
    """
    try:
        folder = read_run(output)
        counts = folder.counts
        return Run(output, status, rows=counts["read"], rejects=counts["rejects"], metrics=folder.metrics)
    except DAMAGE as error:
        raise _damaged(output, error) from error


def _refusal(output: Path) -> str:
    try:
        refusal = read_refusal(output)
        return printable(refusal.reason) if refusal else "the run was refused."
    except DAMAGE:
        return "the run was refused, and the note that says why is damaged."


def _damaged(output: Path, error: Exception) -> DataError:
    return DataError(
        f"{printable(output)} is damaged ({printable(type(error).__name__)}). Score again with force=True."
    )
