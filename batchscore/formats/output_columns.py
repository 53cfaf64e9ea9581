"""Which columns predictions hold and what they are called there: all under their own names, unless asked otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import DataError, UsageError, printable
from batchscore.formats.column_choice import refuse_named

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.formats.answers import Answers
    from batchscore.records import Layout

_LISTED = 20
"""Names that a message lists."""


@dataclasses.dataclass(frozen=True, slots=True)
class OutputColumns:
    """The columns of predictions, for every file of a run.

    A renamed column is known by the name that it would have otherwise: an added one by that with the prefix.
    """

    prefix: str = ""
    """Before the name of each added column that is not renamed."""
    keep: tuple[str, ...] = ()
    """The input columns that are kept; none: all but those of ``drop``."""
    drop: tuple[str, ...] = ()
    probabilities: str = "all"
    """Of the added columns with probabilities: ``all``, the ``top`` one, or ``none``."""
    renames: Mapping[str, str] = dataclasses.field(default_factory=dict)
    partition: str | None = None
    """The column that names folders, and is in no file."""

    @classmethod
    def of(cls, settings: ScoreSettings) -> OutputColumns:
        """As a run is asked for them."""
        return cls(
            settings.prefix,
            settings.keep_columns,
            settings.drop_columns,
            settings.probabilities,
            settings.renames,
            settings.partition_by,
        )

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> OutputColumns:
        """As an earlier run was asked for them, by the ``options`` of its ``run.json``; older ones name only the prefix.

        Raises:
            KeyError: no prefix, which every version names.
        """
        return cls(
            options["prefix"],
            tuple(options.get("keep_columns") or ()),
            tuple(options.get("drop_columns") or ()),
            options.get("probabilities", "all"),
            options.get("renames") or {},
            options.get("partition_by"),
        )

    @property
    def are_whole(self) -> bool:
        """Whether every input column is held."""
        return not (self.keep or self.drop or self.partition)

    @property
    def are_as_read(self) -> bool:
        """Whether every input column is held under its own name, as far as can be told without a file."""
        return self.are_whole and not self.renames

    def holds(self, name: str) -> bool:
        """Whether an input column is held."""
        return name not in {self.partition, *self.drop} and (not self.keep or name in self.keep)

    def name_of(self, name: str) -> str:
        """The name in predictions of a column that is held."""
        return self.renames.get(name, name)

    def added(self, answers: Answers) -> dict[int, str]:
        """Place among the added columns → name in predictions, of those that are held."""
        names = answers.names(self.prefix)
        return {place: self.name_of(names[place]) for place in self.places(answers)}

    def places(self, answers: Answers) -> Sequence[int]:
        """Places among the added columns of those that are held."""
        return answers.held(self.probabilities)

    def added_names(self, answers: Answers) -> dict[str, str]:
        """Usual name of each added column that is held → its name in predictions, as ``run.json`` has them."""
        names = answers.names()
        return {names[place]: name for place, name in self.added(answers).items()}

    def found(self, name: str) -> str | None:
        """The name in predictions of a chosen column, or of a field within one (``review.body``); None if it is not held.

        >>> OutputColumns(drop=("id",), renames={"review": "r"}).found("review.body")
        'r.body'
        """
        steps = name.split(".")
        columns = [".".join(steps[:end]) for end in range(len(steps), 0, -1)]
        if any(column in {self.partition, *self.drop} for column in columns):
            return None
        if self.keep and not any(column in self.keep for column in columns):
            return None
        renamed = next((column for column in columns if column in self.renames), None)
        return name if renamed is None else self.renames[renamed] + name[len(renamed) :]

    # ------------------------------------------------------------------------------------------ before anything is scored

    def refuse_unknown(self, answers: Answers, layout: Layout, path: Path) -> None:
        """Refuse names that a file has no column for.

        Raises:
            DataError: names the option, and the columns that there are.
        """
        if not layout.columns:  # an empty file
            return
        for option, names in (("--keep-columns", self.keep), ("--drop-columns", self.drop)):
            for name in names:
                found = [column for column in layout.columns if column.name == name]
                refuse_named("", name, found, layout, path, option)
        added = set(answers.names(self.prefix))
        for name in self.renames:
            if name in added:
                self._refuse_left_out(name, answers)
            elif not self.holds(name):
                raise UsageError(f"--rename {printable(name)}=...: predictions do not hold that column.")
            else:
                self._refuse_without_prefix(name, answers, layout)
                found = [column for column in layout.columns if column.name == name]
                refuse_named("", name, found, layout, path, f"--rename; added: {_listed(added, answers)}")

    def _refuse_left_out(self, name: str, answers: Answers) -> None:
        names = answers.names(self.prefix)
        if names.index(name) not in self.added(answers):
            raise UsageError(
                f"--rename {printable(name)}=...: --probabilities {self.probabilities} leaves that column out."
            )

    def _refuse_without_prefix(self, name: str, answers: Answers, layout: Layout) -> None:
        is_input = any(column.name == name for column in layout.columns)
        if self.prefix and not is_input and name in answers.names():
            raise UsageError(
                f"--rename {printable(name)}=...: with --prefix the column is called {printable(self.prefix + name)}; rename that."
            )

    def refuse_taken(self, names: Collection[str], answers: Answers, path: Path) -> None:
        """Refuse two columns of one name, where ``names`` are those of a file's columns.

        Raises:
            DataError: names the column, and what helps.
        """
        held = {name for name in names if self.holds(name)}
        added = set(self.added(answers).values())
        new = {self.renames[name] for name in held if name in self.renames}
        taken = sorted((held - set(self.renames)) & (added | new)) + sorted(new & added)
        if not taken:
            return
        if renamed := [name for name in taken if name in set(self.renames.values())]:
            raise DataError(
                f"{printable(path)}: --rename gives a name that another column has: {printable(', '.join(renamed))}. Choose "
                "another name, or leave that column out with --drop-columns."
            )
        raise DataError(
            f"{printable(path)} already has {printable(', '.join(taken))}, which the scorer adds. Put a prefix before the "
            "added names, for example --prefix batchscore_; or leave the column out with --drop-columns"
        )

    def refuse_equal_names(self, answers: Answers) -> None:
        """Refuse added columns of one name, which a label may bring about, or ``--rename``.

        Raises:
            UsageError: names the column.
        """
        names = [name for place, name in self.added(answers).items() if self._is_renamed(place, answers)]
        every = list(self.added(answers).values())
        if twice := [name for name in names if every.count(name) > 1]:
            raise UsageError(f"--rename calls two of the added columns {printable(twice[0])}.")

    def _is_renamed(self, place: int, answers: Answers) -> bool:
        return answers.names(self.prefix)[place] in self.renames


def _listed(names: Collection[str], answers: Answers) -> str:
    order: Sequence[str] = [name for name in answers.names() if any(each.endswith(name) for each in names)]
    more = f" and {len(order) - _LISTED} more" if len(order) > _LISTED else ""
    return printable(", ".join(order[:_LISTED])) + more
