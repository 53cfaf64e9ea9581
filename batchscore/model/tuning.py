"""The token budget of a GPU, found on the run's own first rows.

A ladder of budgets is climbed from the bottom: each doubles the one below it, and is tried on micro-batches of the
longest rows, which need the most memory. It ends where the device runs out of memory, where twice as many tokens bring
nothing any more, or above what the part holds. Taken is the smallest budget that is within a few percent of the fastest:
less memory for the same speed, and a choice that does not hang on a measurement's noise.

On a CPU nothing is climbed, for two reasons. There is nothing to win: MiniLM-L6 in float32 on one core with AVX2 made
12.3, 12.9, 12.4, 10.8 and 9.2 rows/s with 512 to 8,192 tokens, as a budget only has to be large enough to fill the
units of one core. And there is something to lose: the number of rows in a product changes its last bit (of 128 reviews,
120 in the seventh decimal between any two budgets), so that two runs of one command on one machine could differ.

On a GPU they can, if the two measured differently; so what was found is in the journal, synced, before the first part
is staged. A run that is killed after that goes on with it, bit for bit. A run that is killed before has left no
result behind: the next start is a run from the beginning, with a ladder of its own. ``--max-batch-tokens N`` fixes it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from batchscore.errors import printable
from batchscore.model import batching
from batchscore.model.backends import OutOfDeviceMemoryError
from batchscore.model.scoring import Model, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
LADDER = tuple(2**power for power in range(13, 21))
"""Padded tokens in a micro-batch."""
REPAID_BY = 20_000
"""Rows of a run that are worth the second or two that the ladder takes on a GPU."""
_AS_FAST = 1.05
"""Rates that differ by less are the same."""


def is_repaid(model: Model, rows: int) -> bool:
    """Whether a run of so many rows is to look for its budget."""
    return model.backend.device != "cpu" and rows >= REPAID_BY and model.padding.is_there


def tuned_budget(
    model: Model, texts: Sequence[str | None], clock: Callable[[], float] = time.perf_counter
) -> int:
    """The smallest budget of the ladder that fits the device and is as fast as any on these texts, one part of a run.

    It is the model's own where the texts are too few for the second rung or the model fails on one, and the lowest
    where none fits.
    """
    sequences = prepare(texts, model).encodings.input_ids
    held = sum(model.padding.width(len(ids)) for ids in sequences)
    rates: dict[int, float] = {}
    for budget in LADDER:
        if budget > held:
            break
        try:
            rates[budget] = _rate(model, sequences, budget, clock)
        except OutOfDeviceMemoryError:
            model.backend.release()
            return _smallest_of_the_fastest(rates) if rates else LADDER[0]
        except Exception as error:  # noqa: BLE001 - a row that cannot be scored is met again, and alone, in its part
            _LOG.info("no token budget was looked for: %s", printable(error))
            return model.inference.max_batch_tokens
        if budget // 4 in rates and max(rates.values()) < rates[budget // 4] * _AS_FAST:
            break  # two rungs brought nothing
    return _smallest_of_the_fastest(rates) if len(rates) > 1 else model.inference.max_batch_tokens


def _smallest_of_the_fastest(rates: dict[int, float]) -> int:
    return min(budget for budget, rate in rates.items() if rate * _AS_FAST >= max(rates.values()))


def _rate(
    model: Model, sequences: Sequence[NDArray[np.int32]], budget: int, clock: Callable[[], float]
) -> float:
    """Padded tokens a second of a micro-batch that fills ``budget`` with the longest sequences, repeated if need be."""
    longest_first = np.concatenate(batching.plan_sequences(sequences, budget, model.padding))
    width = model.padding.width(len(sequences[longest_first[0]]))
    chosen = np.resize(longest_first, max(1, budget // width))
    batch = batching.assemble(sequences, chosen, model.padding)
    model.backend.logits(batch)  # a first time, for what is prepared once
    seconds = []
    for _ in range(3):
        started = clock()
        model.backend.logits(batch)
        seconds.append(clock() - started)
    return batch.input_ids.size / max(min(seconds), 1e-9)
