"""The Python interface: ``score``, ``train`` and ``open_run``, which are attributes of ``batchscore`` itself.

Each does what its command does: the options are the command's, one function of the library does the work, and errors are those
of :mod:`batchscore.errors`, raised instead of printed. No signal is handled, nothing is printed, and the logging of the program
that calls stays as it is.
"""

from batchscore.api.options import ScoreOptions, TrainOptions
from batchscore.api.run import Page, Run, open_run
from batchscore.api.scoring import score
from batchscore.api.training import Card, TrainedModel, train

__all__ = [
    "Card",
    "Page",
    "Run",
    "ScoreOptions",
    "TrainOptions",
    "TrainedModel",
    "open_run",
    "score",
    "train",
]
