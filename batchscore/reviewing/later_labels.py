"""Labels that came after a run, from its evaluation beside it: a review is of the newest ones."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.errors import DataError, printable
from batchscore.formats.arrow_files import mapped
from batchscore.records import UNKNOWN_LABEL
from batchscore.runs.as_written import changes_in, told
from batchscore.runs.evaluation_folder import evaluation_of
from batchscore.runs.folder import DAMAGE, LABELS, MANIFEST, is_finished, read_facts
from batchscore.system.own_paths import OwnPath, own, own_folder
from batchscore.system.storage import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class LaterLabels:
    """The labels that an evaluation of a run keeps."""

    place: OwnPath
    mark: str
    """By which these labels are known from others."""

    def of_files(
        self, names: Mapping[str, int], labels: Sequence[str]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int32]]]:
        """File, rows in it and the index of the label of each, below 0 for a value that is none; in the order of the run."""
        known = pa.array(labels, pa.string())
        with (self.place / LABELS).readable() as name, mapped(name) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)  # of one file
                if batch.num_rows:
                    given = pc.index_in(batch.column("label"), known).fill_null(UNKNOWN_LABEL)
                    rows = np.array(batch.column("row"), dtype=np.int64)
                    yield names[batch.column("file")[0].as_py()], rows, np.array(given, dtype=np.int32)


def later_labels(run: Path) -> LaterLabels | None:
    """Those beside a run; None if there are none, or those of what the folder held before it was scored again.

    Raises:
        DataError: the evaluation is damaged.
    """
    place = own(evaluation_of(run))
    if not is_finished(place):
        return None
    try:
        evaluates = read_facts(place).get("evaluates") or {}
        is_of_it = evaluates.get("manifest") == sha256_of(own_folder(run) / MANIFEST)
        problems = changes_in(place)
    except DAMAGE as error:
        raise _damaged(place, printable(repr(error))) from error
    if not is_of_it:
        _LOG.warning("%s is of another run, so the labels that it keeps do not count", printable(place))
        return None
    if problems:
        raise _damaged(place, told(problems))
    return LaterLabels(place, sha256_of(place / MANIFEST))


def _damaged(place: OwnPath, what: str) -> DataError:
    return DataError(
        f"{printable(place)} is not as it was written: {what}. Evaluate the run again with --force, with all labels so far, or "
        "move that folder away to review by the labels that came with the run."
    )
