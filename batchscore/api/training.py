"""``batchscore.train``: the trainer from Python, by the function that the command calls."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.api.data import files_of, folder_of_tables, splits_of
from batchscore.api.libraries import as_talkative_as_before
from batchscore.api.options import PathLike, TrainOptions, documented, local_path, values_of
from batchscore.api.progress import Bar
from batchscore.cli.train import command, train_settings
from batchscore.errors import UsageError
from batchscore.system.terminal import NOTICE

if TYPE_CHECKING:
    from typing import Unpack

    from batchscore.api.data import Data
    from batchscore.training import TrainResult

_LOG = logging.getLogger(__name__)
_CARD = "README.md"


class Card:
    """The model card of a bundle, which shows itself in a notebook."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        """The path of the card."""
        return str(self.path)

    def __repr__(self) -> str:
        return f"<card {self.path}>"

    def _repr_markdown_(self) -> str:
        text = self.path.read_text("utf-8")
        if text.startswith("---\n"):  # metadata for the hub
            text = text.partition("\n---\n")[2]
        return text.strip()


class TrainedModel:
    """A trained model: its ``bundle`` is what ``score`` takes, and so is the object itself."""

    def __init__(self, result: TrainResult, pushed_to: str | None) -> None:
        self.bundle = result.output
        """The folder."""
        self.labels = result.labels
        self.rows = result.rows
        """Training rows."""
        self.metrics = dict(result.metrics)
        """The evaluation, as in ``batchscore.json``."""
        self.fingerprint = result.fingerprint
        self.status = "done" if result.was_done else "trained"
        """``trained``, or ``done`` with ``resume=True`` if it had been trained before."""
        self.pushed_to = pushed_to
        """Where on the hub it is, with ``push_to_hub``."""

    @property
    def card(self) -> Card:
        """The model card."""
        return Card(self.bundle / _CARD)

    def __fspath__(self) -> str:
        """The path of the bundle."""
        return str(self.bundle)

    def __repr__(self) -> str:
        return f"<model: {self.status}, {self._headline()}, bundle {self.bundle}>"

    def _headline(self) -> str:
        from batchscore.training.figures import headlines

        said = [f"{name} {value:.4f}{interval}" for _, name, value, interval in headlines(self.metrics)[:1]]
        return ", ".join([*said, f"{self.rows} training rows"])

    def _repr_markdown_(self) -> str:
        return self.card._repr_markdown_()


@documented(command, TrainOptions)
def train(data: Data | Mapping[str, Data], output: PathLike, **options: Unpack[TrainOptions]) -> TrainedModel:
    """Train a classifier from labelled texts and write its bundle to ``output``, as ``batchscore-train`` does.

    ``data`` is a file, a folder, ``"builtin"``, the name of a hub data set, or a table as for :func:`batchscore.score`. A
    dictionary of tables, such as a ``datasets.DatasetDict``, is a folder of splits, ``train`` and ``test``.

    Raises:
        BatchscoreError: what went wrong, by its class (:mod:`batchscore.errors`), with the ``exit_code`` of the command.
        TypeError: an option that does not exist.
    """
    given = dict(options)
    folder = folder_of_tables(output)
    files = splits_of(data, folder)
    evaluation = given.pop("eval_data", None)
    others = None
    if evaluation is not None:
        others = files_of(evaluation, folder.with_suffix(".eval"))
        if len(others.arguments) != 1:
            raise UsageError("eval_data is one path or one table.")
    taken = {"data": files.arguments[0], "output": Path(local_path(output))}
    if others is not None:
        taken["eval_data"] = others.arguments[0]
    values = values_of(command, taken, given, "train")
    aside = others.there("eval_data") if others else contextlib.nullcontext()
    with files.there(), aside, as_talkative_as_before():
        return _trained(values)


def _trained(values: dict[str, Any]) -> TrainedModel:
    from batchscore.training import train as run

    repo = values.pop("push_to_hub")
    settings = train_settings(**values)
    result = run(
        settings,
        lambda total: Bar(total, quiet=values["quiet"]),
        lambda line: _LOG.log(NOTICE, "%s", line),
    )
    where = None
    if repo:
        from batchscore.training.publishing import push_to_hub

        where = push_to_hub(result.output, repo)
    return TrainedModel(result, where)
