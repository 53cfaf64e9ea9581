"""How the package is built: no circle of imports, no long module, and each fact spelled in one place."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import batchscore
from batchscore.formats import registry as formats

ROOT = Path(batchscore.__file__).parent
MOST_LINES = 450
LONG = {"formats/delimited/records.py"}
"""Modules that may be longer."""
SPELLED_ONCE = {
    "_SUCCESS": "system/storage.py",
    "rejects.jsonl": "runs/folder.py",
    "pip install 'batchscore[": "errors.py",
}
"""Texts that occur in the code of one module only, alone or within others; docstrings may have them."""
RUN_FILES = (
    "predictions",
    "mismatches.parquet",
    "mismatches.csv",
    "metrics.json",
    "run.json",
    "report.html",
    "report.txt",
)
STAGED_FILES = ("refused.json", "plan.json", "journal.jsonl", "refused.jsonl", "replaced.json")

MODULES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(ROOT.rglob("*.py"))}


def imports_of(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules that each module imports, wherever it does: within functions and for type checkers too."""
    names = {name_of(path): ast.parse(source) for path, source in modules.items()}
    return {name: {found for found in imported(tree) if found in names} for name, tree in names.items()}


def name_of(path: str) -> str:
    """``runs/run.py`` is ``batchscore.runs.run``."""
    return ".".join(("batchscore", *Path(path).with_suffix("").parts)).removesuffix(".__init__")


MODULE_NAMES = {name_of(path) for path in MODULES}


def imported(tree: ast.Module) -> Iterator[str]:
    """Names of modules in imports: of ``from a import b`` that is ``a.b`` where this is a module of ours, else ``a``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULE_NAMES else str(node.module)


def circle_in(modules: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle; empty without one."""
    try:
        graphlib.TopologicalSorter(imports_of(modules)).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_in_a_circle() -> None:
    assert circle_in(MODULES) == []


@pytest.mark.parametrize(
    "back",
    [
        "from batchscore.runs.run import score",
        "from batchscore.runs import run",
        "import batchscore.runs.run",
        "def later():\n    from batchscore.runs.run import score",
        "if TYPE_CHECKING:\n    from batchscore.runs.run import score",
    ],
)
def test_a_circle_is_seen_however_it_is_imported(back: str) -> None:
    modules = {"runs/run.py": "from batchscore.runs.planning import Plan", "runs/planning.py": back}
    assert set(circle_in(modules)) == {"batchscore.runs.run", "batchscore.runs.planning"}


def test_modules_are_short_but_for_those_that_are_named() -> None:
    lines = {path: len(source.splitlines()) for path, source in MODULES.items()}
    assert {path for path, n in lines.items() if n > MOST_LINES} == LONG


@functools.cache
def texts_in(source: str) -> set[str]:
    """Texts in the code, parts of f-strings too, but no docstrings."""
    tree = ast.parse(source)
    told = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told
    }


@pytest.mark.parametrize("name", [*RUN_FILES, *STAGED_FILES])
def test_a_file_of_a_run_is_named_in_one_module(name: str) -> None:
    assert [path for path, source in MODULES.items() if name in named_in(source)] == ["runs/folder.py"]


def test_only_formats_name_a_format() -> None:
    words = {*formats.NAMES, *formats.suffixes()} - {"json", ".json"}  # logs and the trend have them too
    outside = {path: source for path, source in MODULES.items() if not path.startswith("formats/")}
    named = {path: named_in(source) & words for path, source in outside.items()}
    assert {path: found for path, found in named.items() if found} == {
        "runs/folder.py": {".arrow"}
    }  # staged parts


def named_in(source: str) -> set[str]:
    """Whole texts in the code, without the slashes that join names."""
    return {text.strip("/") for text in texts_in(source)}


@pytest.mark.parametrize(("text", "home"), SPELLED_ONCE.items())
def test_a_fact_is_spelled_in_one_module(text: str, home: str) -> None:
    assert [path for path, source in MODULES.items() if any(text in each for each in texts_in(source))] == [
        home
    ]
