"""``promote``: only a challenger that is better, and worse nowhere, takes the champion's link; killed anywhere it leads somewhere."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import run_score, seal_bundle

from batchscore import cli
from batchscore.errors import BusyError, ModelError, NoInputError, OutputError, StorageError
from batchscore.evaluation.calibration_change import calibration_change
from batchscore.model.bundle import open_bundle
from batchscore.runs.champion import Champion
from batchscore.runs.promotion import roll_back

WORDS = [
    "good",
    "bad",
    "fine",
    "awful",
    "plot",
    "cast",
    "slow",
    "long",
    "bright",
    "dull",
    "music",
    "end",
    "scene",
    "twice",
]


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43 + " nobody\n"


class Field:
    """Two bundles that answer differently, a copy of the first, and texts with what each says of them."""

    def __init__(self, folder: Path, make_model: Callable[..., Path]) -> None:
        self.old = folder / "old"
        self.new = folder / "new"
        shutil.copytree(seal_bundle(make_model(seed=1)), self.old)
        shutil.copytree(seal_bundle(make_model(seed=5)), self.new)
        self.same = folder / "same"
        twin = make_model(seed=1)
        shutil.copytree(twin, self.same)
        (self.same / "LICENSE.txt").write_text("the same weights, another bundle\n", encoding="utf-8")
        seal_bundle(self.same)
        rng = np.random.default_rng(3)
        texts = [" ".join(rng.choice(WORDS, 12)) for _ in range(240)]
        self.table = pd.DataFrame({"text": texts, "shop": ["a" if k % 4 else "b" for k in range(240)]})
        self.table[["text"]].to_csv(folder / "texts.csv", index=False)
        self.said = {}
        for bundle in (self.old, self.new):
            run_score(folder / "texts.csv", bundle, folder / f"run-{bundle.name}")
            answers = pd.read_csv(folder / f"run-{bundle.name}" / "predictions" / "texts.csv")
            self.said[bundle.name] = answers.predicted_label.to_numpy()


@pytest.fixture(scope="module")
def field(
    tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path], quick_runs: None
) -> Field:
    return Field(tmp_path_factory.mktemp("promote"), make_model)


@pytest.fixture
def models(field: Field, tmp_path: Path) -> Path:
    """A folder with a link ``champion`` to the old bundle."""
    (tmp_path / "champion").symlink_to(field.old)
    return tmp_path


def invoke(*arguments: Any) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(cli.main, ["promote", *map(str, arguments), "--json"])
    return done.exit_code, json.loads(done.output.splitlines()[-1])


def labelled(field: Field, labels: Any, folder: Path) -> Path:
    path = folder / "labelled.csv"
    field.table.assign(label=labels).to_csv(path, index=False)
    return path


def test_the_two_models_differ_often_enough_for_these_tests(field: Field) -> None:
    assert (field.said["old"] != field.said["new"]).sum() > 60


def test_a_better_challenger_is_promoted_and_goes_back_again(field: Field, models: Path) -> None:
    data, champion = labelled(field, field.said["new"], models), models / "champion"
    code, told = invoke(field.new, "--over", champion, "--data", data, "--output", models / "kept")
    assert (code, told["status"], told["broken"]) == (0, "promoted", 0)
    assert Path(os.path.realpath(champion)) == field.new
    assert Path(os.path.realpath(models / "champion.previous")) == field.old
    assert "than in the earlier run" in Path(told["page"]).read_text(encoding="utf-8")
    assert (field.old / "config.json").exists()
    code, told = invoke(field.new, "--over", champion, "--data", data)
    assert (code, told["status"]) == (0, "already")
    code, told = invoke("--rollback", "--over", champion)
    assert (code, told["champion"]) == (0, str(field.old))
    assert Path(os.path.realpath(models / "champion.previous")) == field.new


def test_an_equal_challenger_is_not_promoted(field: Field, models: Path) -> None:
    labels = np.where(np.arange(240) % 3 == 0, field.said["new"], field.said["old"])
    code, told = invoke(field.same, "--over", models / "champion", "--data", labelled(field, labels, models))
    assert (code, told["status"], told["exit_code"]) == (3, "kept", 3)
    assert "not better beyond chance: 0 rows fixed and 0 broken" in told["reasons"][0]
    assert Path(os.path.realpath(models / "champion")) == field.old
    assert not (models / "champion.previous").is_symlink()


def test_a_better_one_that_is_worse_in_a_slice_is_not_promoted(field: Field, models: Path) -> None:
    labels = np.where(field.table.shop == "b", field.said["old"], field.said["new"])
    arguments = (
        "--over",
        models / "champion",
        "--data",
        labelled(field, labels, models),
        "--slice-column",
        "shop",
    )
    code, told = invoke(field.new, *arguments)
    assert (code, told["status"]) == (3, "kept")
    assert told["fixed"] > told["broken"]
    assert told["p_value"] < 0.05
    assert any("worse where shop is b" in reason for reason in told["reasons"]), told["reasons"]
    assert Path(os.path.realpath(models / "champion")) == field.old


def test_a_gate_that_fails_keeps_the_champion(field: Field, models: Path) -> None:
    rng = np.random.default_rng(0)
    other = np.where(field.said["new"] == "POSITIVE", "NEGATIVE", "POSITIVE")
    labels = np.where(rng.random(240) < 0.05, other, field.said["new"])
    arguments = (
        "--over",
        models / "champion",
        "--data",
        labelled(field, labels, models),
        "--fail-below",
        "accuracy=0.99",
    )
    code, told = invoke(field.new, *arguments)
    assert (code, told["status"]) == (3, "kept")
    assert any(reason.startswith("accuracy is") for reason in told["reasons"])


def test_labels_that_differ_are_refused(field: Field, models: Path, make_model: Callable[..., Path]) -> None:
    other = seal_bundle(make_model(("NEGATIVE", "NEUTRAL")))
    code, told = invoke(
        other, "--over", models / "champion", "--data", labelled(field, field.said["new"], models)
    )
    assert code == 78
    assert "NEUTRAL" in told["error"]


def test_rows_without_labels_are_refused(field: Field, models: Path) -> None:
    field.table[["text"]].to_csv(models / "bare.csv", index=False)
    code, _ = invoke(field.new, "--over", models / "champion", "--data", models / "bare.csv")
    assert code == 65
    assert Path(os.path.realpath(models / "champion")) == field.old


def test_a_champion_that_is_no_link_is_refused_with_the_commands_that_make_it_one(
    field: Field, tmp_path: Path
) -> None:
    folder = tmp_path / "champion"
    folder.mkdir()
    with pytest.raises(OutputError, match="ln -s champion-1"):
        Champion.at(folder)
    with pytest.raises(NoInputError, match="ln -s BUNDLE"):
        Champion.at(tmp_path / "none")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(ModelError, match="no folder"):
        Champion.at(tmp_path / "dangling")
    assert invoke(field.new, "--over", tmp_path / "dangling", "--data", "x.csv")[0] == 78


# ---------------------------------------------------------------------------------------------------------- the link


@pytest.fixture
def link(tmp_path: Path) -> Champion:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "champion").symlink_to("one")
    return Champion.at(tmp_path / "champion")


class Killed(BaseException):
    """In the place of SIGKILL."""


def cut_at(step: int, patched: pytest.MonkeyPatch) -> None:
    """Let the process end at its ``step``-th call of the system that changes a name."""
    left = [step]
    for name in ("symlink", "replace", "unlink"):
        real = getattr(os, name)

        def call(*arguments: Any, _real: Any = real, **more: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return _real(*arguments, **more)

        patched.setattr(os, name, call)


@pytest.mark.parametrize("is_back", [False, True], ids=["move", "move back"])
def test_killed_at_any_step_the_link_is_the_old_or_the_new_one(
    link: Champion, is_back: bool, tmp_path: Path
) -> None:
    if is_back:
        link.move(tmp_path / "two")
    old, new = ("two", "one") if is_back else ("one", "two")
    seen = []
    for step in range(20):
        with pytest.MonkeyPatch.context() as patched:
            cut_at(step, patched)
            try:
                link.move_back() if is_back else link.move(tmp_path / "two")
            except Killed:
                seen.append(link.target)
                continue
        break
    assert set(seen) <= {old, new}
    assert seen == sorted(seen, key=[old, new].index)
    assert len(seen) >= 5
    assert link.target in {old, new}
    assert not list(tmp_path.glob(".*")), "what a killed one left is taken away"


def test_whoever_looks_while_it_moves_sees_one_or_the_other(link: Champion, tmp_path: Path) -> None:
    seen, ended = set(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            seen.add(os.path.realpath(tmp_path / "champion"))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(40):
        link.move(tmp_path / "two")
        link.move(tmp_path / "one")
    ended.set()
    watcher.join()
    assert seen <= {str(tmp_path / "one"), str(tmp_path / "two")}


def test_a_link_to_a_bundle_elsewhere_is_a_whole_path_and_one_beside_it_a_name(
    link: Champion, tmp_path: Path
) -> None:
    far = tmp_path.parent / "far"
    far.mkdir(exist_ok=True)
    link.move(far)
    assert link.target == str(far)
    link.move(tmp_path / "two")
    assert (link.target, link.target_before()) == ("two", str(far))


def test_a_bundle_named_from_where_one_stands_is_found_from_where_the_link_is(
    link: Champion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path.parent / "named from there"
    far.mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path.parent)
    link.move(Path(far.name))
    assert link.folder == far
    link.move(Path(tmp_path.name, "two"))
    assert (link.target, link.folder) == ("two", tmp_path / "two")


def test_one_goes_back_from_a_champion_that_is_gone_and_only_to_what_is_trusted(
    field: Field, models: Path
) -> None:
    champion, key = models / "champion", models / "key.pub"
    key.write_text(KEY)
    Champion.at(champion).move(field.new)
    champion.unlink()
    champion.symlink_to("gone")
    code, _ = invoke("--rollback", "--over", champion, "--trust", key)
    assert (code, champion.readlink()) == (78, Path("gone"))
    assert invoke("--rollback", "--over", champion)[0] == 0
    assert Path(os.path.realpath(champion)) == field.old


def test_two_promotions_at_once_are_one_too_many(link: Champion) -> None:
    with link.held(), pytest.raises(BusyError, match="Another promotion"), link.held():
        pass


def test_there_is_nothing_to_go_back_to_at_first(link: Champion) -> None:
    with pytest.raises(NoInputError, match=r"champion\.previous"):
        roll_back(link.link.path)


def test_a_folder_that_takes_no_link_is_told(link: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(StorageError, match="Moving the link"):
        link.move(link.link.root / "two")
    assert link.target == "one"


def test_a_bundle_is_read_from_the_folder_that_the_link_led_to_when_it_was_opened(
    field: Field, models: Path
) -> None:
    bundle = open_bundle(str(models / "champion"))
    Champion.at(models / "champion").move(field.new)
    assert bundle.path == field.old
    bundle.refuse_changed()
    assert open_bundle(str(models / "champion")).fingerprint != bundle.fingerprint


# --------------------------------------------------------------------------------------------------- calibration


def draws(rng: np.random.Generator, sharpening: float, rows: int = 1500) -> tuple[Any, Any]:
    """Probabilities of right answers, told with a logit that is too large by a factor."""
    honest = rng.uniform(0.55, 0.97, rows)
    told = 1 / (1 + np.exp(-sharpening * np.log(honest / (1 - honest))))
    return told.astype(np.float32), rng.random(rows) < honest


def test_overconfidence_is_worse_calibration_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    assert calibration_change(draws(rng, 1.0), draws(rng, 2.0)).p_value < 0.01
    assert calibration_change(draws(rng, 2.0), draws(rng, 1.0)).p_value > 0.9


def test_of_equal_models_it_says_so_as_rarely_as_promised() -> None:
    rng = np.random.default_rng(2)
    values = [calibration_change(draws(rng, 1.0, 150), draws(rng, 1.0, 150)).p_value for _ in range(16)]
    assert sum(value < 0.05 for value in values) <= 4  # 16 at 5 %: more than 4 come once in 1,000
    assert min(values) > 0


def test_a_model_against_itself_is_no_change() -> None:
    rows = draws(np.random.default_rng(3), 1.5)
    told = calibration_change(rows, rows)
    assert (told.before, told.p_value) == (told.after, 1.0)
