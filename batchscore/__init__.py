"""Score files of texts with a saved classifier, every night, without anyone watching.

From Python: :func:`score`, :func:`train`, :func:`open_run` and :func:`evaluate` (:mod:`batchscore.api`), and the errors that they raise
(:mod:`batchscore.errors`). What is heavy is imported when it is used.
"""

from typing import TYPE_CHECKING

from batchscore import errors
from batchscore.version import __version__

if TYPE_CHECKING:
    from batchscore.api import Evaluation, Run, TrainedModel, evaluate, open_run, score, train
else:

    def __getattr__(name: str) -> object:
        """The names of the Python interface, imported with the first use of one."""
        if name in __all__:
            import importlib

            return getattr(importlib.import_module("batchscore.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Evaluation",
    "Run",
    "TrainedModel",
    "__version__",
    "errors",
    "evaluate",
    "open_run",
    "score",
    "train",
]
