"""The Python interface: ``score``, ``train``, ``open_run`` and ``evaluate``, which are attributes of ``batchscore`` itself.

Each does what its command does: the options are the command's, one function of the library does the work, and errors are those
of :mod:`batchscore.errors`, raised instead of printed. No signal is handled, nothing is printed, and the logging of the program
that calls stays as it is.
"""

from batchscore.api.evaluating import Evaluation, evaluate
from batchscore.api.options import EvaluateOptions, ScoreOptions, TrainOptions
from batchscore.api.page import Page
from batchscore.api.run import Run, open_run
from batchscore.api.scoring import score
from batchscore.api.training import Card, TrainedModel, train

__all__ = [
    "Card",
    "EvaluateOptions",
    "Evaluation",
    "Page",
    "Run",
    "ScoreOptions",
    "TrainOptions",
    "TrainedModel",
    "evaluate",
    "open_run",
    "score",
    "train",
]
