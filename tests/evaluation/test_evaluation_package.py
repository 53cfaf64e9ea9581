from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import batchscore.evaluation

MODULES = [
    f"batchscore.evaluation.{module.name}" for module in pkgutil.iter_modules(batchscore.evaluation.__path__)
]
HEAVY = ("cleanlab", "pandas", "pyarrow", "scipy", "sklearn", "torch", "transformers")


def test_importing_the_package_loads_numpy_only() -> None:
    code = f"import sys, batchscore.evaluation; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
