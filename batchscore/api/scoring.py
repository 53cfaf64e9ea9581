"""``batchscore.score``: the command from Python, by the function that the command calls."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.addresses import Address, Place, address_in
from batchscore.api.data import Files, files_of, folder_of_tables
from batchscore.api.indexes import index_of, joinable
from batchscore.api.libraries import as_talkative_as_before
from batchscore.api.options import PathLike, ScoreOptions, documented, local_path, values_of
from batchscore.api.progress import Bar
from batchscore.api.run import Run, TemporaryFolder, opened_there
from batchscore.cli.output import measured
from batchscore.cli.score import command, score_settings
from batchscore.errors import BatchscoreError
from batchscore.runs.folder import check_run

if TYPE_CHECKING:
    from typing import Unpack

    from batchscore.api.data import Data
    from batchscore.runs.result import RunResult

_NAME = "run"
"""The folder of a temporary run; no name that could be a date."""


@documented(command, ScoreOptions)
def score(
    data: Data, model: PathLike, output: PathLike | None = None, **options: Unpack[ScoreOptions]
) -> Run:
    """Score texts with a saved classifier, as ``batchscore score`` does.

    ``data`` is a path or several (files, folders, globs), or a table: a pandas or Polars ``DataFrame``, a ``pyarrow.Table``, a
    ``datasets.Dataset``, or whatever else has the Arrow PyCapsule interface. ``model`` is a bundle, a Hugging Face folder, or a
    hub id with ``revision``. ``output`` is the run folder: called again, a finished run is returned at once, and one that was
    stopped goes on; in a bucket, the result reads a copy of it. Without it the run is temporary: its folder lives as long as the result.

    Raises:
        BatchscoreError: what went wrong, by its class (:mod:`batchscore.errors`), with the ``exit_code`` of the command. Where
            everything was scored and written nevertheless, as with a failed gate, the error has the ``run``.
        TypeError: an option that does not exist.
    """
    temporary = TemporaryFolder() if output is None else None
    try:
        target = _named(output) if output is not None else _inside(temporary)
        with _for_tables(target) as folder:
            return _scored(files_of(data, folder), model, target, temporary, dict(options))
    except BaseException as error:
        if temporary is not None and getattr(error, "run", None) is None:
            temporary.remove()
        raise


def _named(output: PathLike) -> Place:
    return address_in(local_path(output)) or Path(local_path(output))


def _inside(temporary: TemporaryFolder | None) -> Path:
    assert temporary is not None  # noqa: S101 - there is one without an output
    return temporary.path / _NAME


@contextlib.contextmanager
def _for_tables(output: Place) -> Iterator[Path]:
    """The folder for tables as files: beside the output, or, of one in a bucket, in one of our own among the temporary files."""
    if isinstance(output, Path):
        yield folder_of_tables(output)
    else:
        with tempfile.TemporaryDirectory(prefix="batchscore-") as private:
            yield folder_of_tables(Path(private) / _NAME)


def _scored(
    files: Files, model: PathLike, output: Place, temporary: TemporaryFolder | None, options: dict[str, Any]
) -> Run:
    taken = {"inputs": files.arguments, "model": model, "output": str(output)}
    values = values_of(command, taken, options, "score")
    index = None
    if (table := files.table) is not None:
        table, values = joinable(table, values)
        files, index = files.with_table(table), index_of(table.schema)
    with measured(values["metrics_file"]) as results:
        result = _result(files, values)
        results.append(result)
        if result.bucket is not None and result.status != "planned":
            return _there(result, result.bucket)
        run = Run(
            result.output,
            result.status,
            rows=result.rows,
            rejects=result.rejects,
            metrics=result.metrics,
            temporary=temporary,
            index=index,
        )
        run.forecast = result.forecast.to_json() if result.forecast else None
        if result.status == "done":  # what is handed out was not just written
            check_run(result.output)
        try:
            result.outcome()
        except BatchscoreError as error:
            error.run = run
            raise
        return run


def _there(result: RunResult, address: Address) -> Run:
    """A run in a bucket; its object reads a copy."""
    run = opened_there(address, result.status)
    try:
        result.outcome()
    except BatchscoreError as error:
        error.run = run
        raise
    return run


def _result(files: Files, values: dict[str, Any]) -> RunResult:
    settings = score_settings(**values)
    from batchscore.runs.anywhere import score as run

    with files.there(), as_talkative_as_before():
        return run(settings, lambda total: Bar(total, quiet=values["quiet"]))
