"""Train a bundle: the same command as ``batchscore-train``."""

from batchscore.cli import train_main

train_main()
