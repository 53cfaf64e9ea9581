"""The real command in children that start at once: forked from a server that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch",
        "transformers",
        "transformers.models.bert.modeling_bert",
        "transformers.models.bert.tokenization_bert",
        "batchscore.cli",
        "batchscore.runs.run",
        "batchscore.runs.inspection",
        "batchscore.model.backends.torch_backend",
        "cleanlab.experimental.label_issues_batched",
        "pytest",
        "warm",
    ]
)


def _command(arguments: Sequence[str], log: str) -> None:
    from batchscore.cli import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout, sys.stderr = (os.fdopen(standard, "w", closefd=False) for standard in (1, 2))
    sys.argv[:] = ["batchscore", *arguments]
    main()


def start(arguments: Sequence[object], log: Path) -> ForkServerProcess:
    """Start ``batchscore ARGUMENTS``; what it says is appended to ``log``."""
    process = CONTEXT.Process(target=_command, args=([str(argument) for argument in arguments], str(log)))
    process.start()
    return process


def ended(process: ForkServerProcess, seconds: float = 120) -> int:
    """Wait for a command and give its exit code, that of a signal negative."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"the command did not end within {seconds} s")
    code = process.exitcode
    process.close()
    return code


def run(arguments: Sequence[object], log: Path) -> int:
    """Start a command and wait for its end."""
    return ended(start(arguments, log))
