"""The answers of an earlier run, read from its predictions into a store that lasts as long as this run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from batchscore.errors import DataError, NoInputError, printable
from batchscore.formats.answers import answers_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import texts_of_file
from batchscore.records import Status
from batchscore.runs.answer_store import Answer
from batchscore.runs.earlier_files import EarlierFile, described, files_of, settings_of
from batchscore.runs.folder import DAMAGE, FACTS, PREDICTIONS, RunFolder, is_finished, read_run
from batchscore.system.own_paths import own_folder
from batchscore.system.storage import damage, read_manifest

if TYPE_CHECKING:
    from batchscore.formats.columns import Texts
    from batchscore.model.bundle import Bundle
    from batchscore.records import Text

_SCORED = {Status.OK.text, Status.ABSTAINED.text}
_ADVICE = "Score that run again with --force, name another, or leave --reuse out."


@dataclasses.dataclass(frozen=True, slots=True)
class EarlierPredictions:
    """The predictions of a finished run whose answers may be taken."""

    path: Path
    run: RunFolder
    hashes: Mapping[str, str]
    """Path → SHA-256 of its files, from its ``_SUCCESS``."""
    files: tuple[EarlierFile, ...]

    @property
    def deciding(self) -> str | None:
        """By what its answers are known (:mod:`batchscore.model.answer_bits`); None if it was not noted."""
        return self.run.facts.get("deciding")

    @property
    def identity(self) -> str:
        """What no other run has in common with it."""
        return self.run.fingerprint

    def verify(self) -> None:
        """Check the hash of every file that answers are read from.

        Raises:
            DataError: one is missing or was changed.
        """
        place = own_folder(self.path)
        read = [name for name in self.hashes if name == FACTS or name.startswith(f"{PREDICTIONS}/")]
        for name in read:
            if problem := damage(place / name, self.hashes[name]):
                raise _unusable(self.path, f"{printable(name)}: {problem}")

    def answers(self, bundle: Bundle) -> Iterator[list[tuple[Text, Answer]]]:
        """The texts that it scored, each with its answer, a few thousand rows at a time.

        Raises:
            DataError: its predictions lack a column; names it.
        """
        added = _Added.of(self, bundle)
        for file in self.files:
            if file.has_rows:
                names = self._columns(file, added)
                for texts in texts_of_file(file.source, settings_of(file), list(dict.fromkeys(names))):
                    yield list(self._of(texts, file, added))

    def _columns(self, file: EarlierFile, added: _Added) -> list[str]:
        if not file.has_texts:
            raise _unusable(
                self.path,
                "its predictions do not hold the texts (--drop-columns, --keep-columns), by which answers are found",
                "Keep those columns, name a store in the place of a run, or leave --reuse out.",
            )
        names = [*file.columns.texts, *added.values, added.n_tokens, added.status]
        found = {column.name for column in described(file).columns}
        if missing := [
            name for name in names if found and name.split(".")[0] not in found and name not in found
        ]:
            raise _unusable(self.path, f"{printable(file.path)} has no column {printable(missing[0])}")
        return names

    def _of(self, texts: Texts, file: EarlierFile, added: _Added) -> Iterator[tuple[Text, Answer]]:
        columns = [texts[name] for name in file.columns.texts]
        for row, status in enumerate(texts[added.status]):
            if status in _SCORED and columns[0][row]:
                given = [column[row] or "" for column in columns]
                try:
                    values = np.array([texts[name][row] for name in added.values], dtype=np.float32)
                    answer = Answer(int(texts[added.n_tokens][row] or ""), values)
                except (ValueError, TypeError):
                    raise _unusable(
                        self.path, f"{printable(file.path)} holds an answer that is no number"
                    ) from None
                yield (given[0] if len(given) == 1 else (given[0], given[1])), answer


@dataclasses.dataclass(frozen=True, slots=True)
class _Added:
    """The names of the added columns that hold answers."""

    values: tuple[str, ...]
    n_tokens: str
    status: str

    @classmethod
    def of(cls, earlier: EarlierPredictions, bundle: Bundle) -> _Added:
        answers = answers_of(bundle.task, bundle.labels)
        names = OutputColumns.of_options(earlier.run.options).added_names(answers)
        usual = answers.value_names()
        if lacking := [name for name in usual if name not in names]:
            raise _unusable(
                earlier.path,
                f"its predictions do not hold {printable(lacking[0])} (--probabilities)",
                "Score with --probabilities all, name a store in the place of a run, or leave --reuse out.",
            )
        return cls(tuple(names[name] for name in usual), names["n_tokens"], names["status"])


def open_earlier_predictions(folder: Path) -> EarlierPredictions:
    """Open a finished run for its answers.

    Raises:
        NoInputError: it is none.
        DataError: it is damaged.
    """
    if not is_finished(folder):
        raise NoInputError(f"--reuse {printable(folder)} is no finished run. {_ADVICE}")
    hashes = read_manifest(folder)
    try:
        run = read_run(folder)
        return EarlierPredictions(folder, run, hashes, files_of(run, hashes))
    except DAMAGE as error:
        raise _unusable(folder, f"its {FACTS} cannot be read: {printable(repr(error))}") from error


def _unusable(folder: Path, what: str, advice: str = _ADVICE) -> DataError:
    return DataError(f"--reuse {printable(folder)}: {what.rstrip('.')}. {advice}")
