"""The trainer: labelled texts in, a sealed bundle out, on Hugging Face ``Trainer``.

The flow, one noun a file: ``data`` (files or a hub data set → two splits) → ``labels`` (given values → label names) →
``base_model`` (an encoder → a classifier with some weights frozen) → ``fitting`` (``Trainer``) → ``examination`` (the
*saved* model, run by the scorer's code: accuracy, temperature, canaries) → ``card`` → ``bundle.seal`` → rename.
"""

from batchscore.training.settings import RECIPES, TrainSettings
from batchscore.training.trainer import TrainResult, train

__all__ = ["RECIPES", "TrainResult", "TrainSettings", "train"]
