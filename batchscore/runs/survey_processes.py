"""Surveys of all files of a run, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from batchscore.runs.surveying import Surveyed, Surveyor

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.formats.inputs import FoundFile
    from batchscore.model.bundle import Bundle


def surveys_of(
    found: Sequence[FoundFile], bundle: Bundle, settings: ScoreSettings, rejects: IO[bytes]
) -> Iterator[Surveyed]:
    """What each file holds; their heads are looked at before the first is read."""
    surveyor = Surveyor(bundle, settings)
    looks = [surveyor.look(file) for file in found]
    left = settings.limit
    for file, look in zip(found, looks, strict=True):
        surveyed = surveyor.survey(file, look, rejects, left)
        left = None if left is None else left - surveyed.rows
        yield surveyed
