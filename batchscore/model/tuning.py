"""Tune the token budget of a GPU on the first rows of a run.

Budgets are doubled, and each is timed on micro-batches of the longest rows, which need the most memory. Tuning ends when the
device runs out of memory, when doubling brings nothing, or when the part has too few tokens. It takes the smallest budget
within a few percent of the fastest: less memory at the same speed, and less dependence on noise.

A CPU's budget is not tuned, for two reasons. There is nothing to gain: MiniLM-L6 in float32 on one core with AVX2 made 12.3,
12.9, 12.4, 10.8 and 9.2 rows/s with 512 to 8,192 tokens, as the budget only has to keep one core busy. And reproducibility
would be lost: the number of rows in a matmul changes its last bit (for 120 of 128 reviews the seventh decimal, between any
two budgets), so two runs of one command on one machine could differ.

On a GPU they can, if the two measured differently. So the budget is in the journal, synced, before the first part is
staged: a run killed after that resumes with it, bit for bit. A run killed before that has left no results, and its next
start tunes again. ``--max-batch-tokens N`` fixes the budget.
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
    from batchscore.records import Encodings, GivenText

_LOG = logging.getLogger(__name__)
BUDGETS = tuple(2**power for power in range(13, 21))
"""Padded tokens in a micro-batch."""
MIN_ROWS = 20_000
"""Rows of a run for which tuning, a second or two on a GPU, pays off."""
_SAME_SPEED = 1.05
"""Rates within this factor count as equal."""


def is_worth_tuning(model: Model, rows: int) -> bool:
    """Whether a run of ``rows`` rows should tune its budget."""
    return model.backend.device != "cpu" and rows >= MIN_ROWS and model.padding.pads


def tuned_budget(
    model: Model, texts: Sequence[GivenText], clock: Callable[[], float] = time.perf_counter
) -> int:
    """The smallest of :data:`BUDGETS` that fits the device and is as fast as any on these texts, one part of a run.

    The model's own budget if the texts are too few for two budgets or the model fails on one; the lowest if none fits.
    """
    encodings = prepare(texts, model).encodings
    n_padded = sum(model.padding.width(len(ids)) for ids in encodings.input_ids)
    rates: dict[int, float] = {}
    for budget in BUDGETS:
        if budget > n_padded:
            break
        try:
            rates[budget] = rate(model, encodings, budget, clock)
        except OutOfDeviceMemoryError:
            model.backend.release()
            return _smallest_fast_budget(rates) if rates else BUDGETS[0]
        except Exception as error:  # noqa: BLE001 - scoring the part will isolate the failing row
            _LOG.info("no token budget was looked for: %s", printable(error))
            return model.inference.max_batch_tokens
        if budget // 4 in rates and max(rates.values()) < rates[budget // 4] * _SAME_SPEED:
            break  # doubling twice brought nothing
    return _smallest_fast_budget(rates) if len(rates) > 1 else model.inference.max_batch_tokens


def _smallest_fast_budget(rates: dict[int, float]) -> int:
    return min(budget for budget, fast in rates.items() if fast * _SAME_SPEED >= max(rates.values()))


def rate(
    model: Model, encodings: Encodings, budget: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Padded tokens per second of a micro-batch that fills ``budget`` with the longest sequences, repeated if too few.

    Raises:
        OutOfDeviceMemoryError: it does not fit the device.
    """
    sequences = encodings.input_ids
    longest_first = np.concatenate(batching.plan_sequences(sequences, budget, model.padding))
    width = model.padding.width(len(sequences[longest_first[0]]))
    chosen = np.resize(longest_first, max(1, budget // width))
    batch = batching.assemble(sequences, chosen, model.padding, encodings.token_type_ids)
    model.backend.logits(batch)  # warm-up
    seconds = []
    for _ in range(3):
        started = clock()
        model.backend.logits(batch)
        seconds.append(clock() - started)
    return batch.input_ids.size / max(min(seconds), 1e-9)
