"""Texts without labels, read as a stream: of many a sample is kept."""

from __future__ import annotations

import array
import hashlib
import heapq
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.errors import DataError, printable
from batchscore.formats.text_keys import text_key
from batchscore.records import Status, status_of
from batchscore.training.data import text_batches

if TYPE_CHECKING:
    from batchscore.records import GivenText, Text
    from batchscore.training.settings import TrainSettings
    from batchscore.training.splits import TrainingData

MOST_TEXTS = 14_000
"""Texts that are learned from where no time is given, and no teacher."""
_MOST_A_MINUTE = 12_000
"""More of them are not kept: ten times what two cores learn from."""


class Unlabelled(NamedTuple):
    """Texts without labels."""

    texts: list[Text]
    """Shuffled."""
    facts: dict[str, Any]
    """``given`` rows, how many of them are not of use and why, and the ``sha256`` of ``texts``."""


def load_unlabelled(settings: TrainSettings, data: TrainingData) -> Unlabelled | None:
    """The texts of ``settings.unlabelled`` but empty ones, those that come again, and those of the labelled data.

    Without a teacher a random sample of them, as many as can be learned from in the time.

    Raises:
        DataError: there is none.
        NoInputError: the data do not exist.
    """
    if settings.unlabelled is None:
        return None
    most = max(MOST_TEXTS, round(_MOST_A_MINUTE * (settings.minutes or 0)))
    sample = Sample(None if settings.teachers else most, settings.seed)
    known = {text_key(text) for split in (data.train, data.evaluation) for text in split.texts}
    given = empty = labelled = 0
    for batch in text_batches(settings.unlabelled, settings):
        given += len(batch)
        for text in batch:
            whole = _whole(text, settings.missing_pair)
            if whole is None:
                empty += 1
            elif (key := text_key(whole)) in known:
                labelled += 1
            else:
                sample.offer(key, whole)
    texts = sample.texts()
    if not texts:
        raise DataError(
            f"{printable(settings.unlabelled)} has no text that is not among the labelled rows too (--unlabelled)."
        )
    digest = hashlib.sha256()
    for each in texts:
        digest.update(json.dumps(each).encode() + b"\n")
    counts = {"given": given, "empty": empty, "labelled": labelled, "again": sample.again()}
    return Unlabelled(texts, {**counts, "sha256": digest.hexdigest()})


def _whole(text: GivenText, missing_pair: str) -> Text | None:
    """A text that can be scored; ``None`` for any other."""
    if text is None or status_of(text, missing_pair) != Status.OK:
        return None
    return (text[0] or "", text[1] or "") if isinstance(text, tuple) else text


class Sample:
    """A random sample of the distinct texts that are offered, of a size at most, in random order.

    It is the texts with the smallest hashes (bottom-k sampling: Cohen and Kaplan 2007, doi:10.1145/1281100.1281133), so it depends on
    the texts and the seed alone, and nothing but the sample and 8 bytes of each text is kept.
    """

    def __init__(self, most: int | None, seed: int) -> None:
        self._most, self._salt = most, seed.to_bytes(16, "little", signed=True)
        self._kept: dict[int, Text] = {}
        self._largest: list[int] = []
        self._offered = array.array("Q")

    def offer(self, key: bytes, text: Text) -> None:
        """Take it, perhaps; the first of those with one ``key`` (16 bytes)."""
        rank = int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=self._salt).digest(), "little")
        self._offered.append(rank)
        if rank in self._kept or (self._is_full() and rank > -self._largest[0]):
            return
        if self._is_full():
            del self._kept[-heapq.heappop(self._largest)]
        heapq.heappush(self._largest, -rank)
        self._kept[rank] = text

    def _is_full(self) -> bool:
        return self._most is not None and len(self._kept) >= self._most

    def texts(self) -> list[Text]:
        """The sample."""
        return [self._kept[rank] for rank in sorted(self._kept)]

    def again(self) -> int:
        """How many were offered that had been offered before."""
        return len(self._offered) - len(np.unique(np.frombuffer(self._offered, dtype=np.uint64)))
