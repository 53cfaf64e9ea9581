"""``Run.evaluate``: labels that came later, from Python, by the function that ``batchscore evaluate`` calls."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from batchscore.api.data import files_of, folder_of_tables
from batchscore.api.libraries import as_talkative_as_before
from batchscore.api.options import EvaluateOptions, PathLike, documented, local_path, values_of
from batchscore.api.page import Page, mismatches_in
from batchscore.cli.evaluate import command, evaluate_settings
from batchscore.errors import BatchscoreError
from batchscore.runs.folder import PAGE
from batchscore.runs.headlines import headline_of

if TYPE_CHECKING:
    from typing import Unpack

    import pyarrow as pa

    from batchscore.api.data import Data
    from batchscore.runs.evaluating import EvaluationResult


class Evaluation:
    """A finished run measured with labels that came later."""

    def __init__(self, result: EvaluationResult) -> None:
        self.output = result.output.absolute()
        """Its folder."""
        self.status = result.status
        """``evaluated``, or ``done`` (it was evaluated with these labels before)."""
        self.rows, self.labelled = result.rows, result.labelled
        """Rows of the run, and how many of them have a label by now."""
        self.metrics = dict(result.metrics)
        """``metrics.json``, as that of a run."""
        self.facts = dict(result.facts)
        """``run.json``; ``labels`` says what became of each file of labels."""

    @functools.cached_property
    def mismatches(self) -> pa.Table | None:
        """Labelled rows whose prediction differs, likeliest label errors first: a ``pyarrow.Table``.

        Raises:
            DataError, StorageError: the file is damaged or cannot be read.
        """
        return mismatches_in(self.output)

    @property
    def report(self) -> Page:
        """The page; in a notebook it shows itself."""
        return Page(self.output / PAGE)

    def __fspath__(self) -> str:
        """The path of its folder."""
        return str(self.output)

    def __repr__(self) -> str:
        figure = str(headline_of(self.metrics))
        told = [self.status, f"{self.labelled:,} of {self.rows:,} rows have labels", figure, str(self.output)]
        return f"<evaluation: {', '.join(filter(None, told))}>"


@documented(command, EvaluateOptions)
def evaluate(
    run: PathLike, labels: Data, output: PathLike | None = None, **options: Unpack[EvaluateOptions]
) -> Evaluation:
    """Measure a finished run with labels that came later, as ``batchscore evaluate`` does; nothing is scored.

    ``labels`` is a path or several, or a table as for :func:`batchscore.score`, with ids, or files and rows. ``output`` is the folder of
    the evaluation, by default ``<run>.evaluation`` beside the run; it keeps the labels, so that they may come in instalments.

    Raises:
        BatchscoreError: what went wrong, by its class (:mod:`batchscore.errors`), with the ``exit_code`` of the command. Where everything
            was written nevertheless, as with a failed gate, the error has the evaluation as its ``run``.
        TypeError: an option that does not exist.
    """
    files = files_of(labels, folder_of_tables(f"{local_path(run).rstrip('/')}.labels"))
    taken: dict[str, Any] = {"run_dir": local_path(run), "labels": files.arguments}
    if output is not None:
        taken["output"] = output
    values = values_of(command, taken, dict(options), "evaluate")
    values.pop("quiet", None)
    with files.there("labels"), as_talkative_as_before():
        from batchscore.runs.evaluating import evaluate as measure

        result = measure(evaluate_settings(**values))
    evaluation = Evaluation(result)
    try:
        result.outcome()
    except BatchscoreError as error:
        error.run = evaluation
        raise
    return evaluation
