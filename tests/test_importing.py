"""Heavy libraries are loaded without holding the interpreter."""

from __future__ import annotations

import subprocess
import sys

_LOADED = """
import sys
from pathlib import Path
from batchscore.system.importing import _load_library
_load_library("torch")
_load_library("no_such_package")
print("libtorch_cpu.so" in Path("/proc/self/maps").read_text(), "torch" in sys.modules)
"""


def test_a_library_is_loaded_before_its_package_is_imported() -> None:
    shown = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["True", "False"]
