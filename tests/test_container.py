"""The image without an engine: its own steps in an overlay of this machine's root, then its entry point with that root read-only.

What pip would download is taken from this environment, and the base image is this machine.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
CONTAINER = ROOT / "jobs" / "container"


class Stage(NamedTuple):
    """One ``FROM`` and what follows."""

    name: str
    steps: list[tuple[str, str]]

    def last(self, kind: str) -> str:
        return [value for found, value in self.steps if found == kind][-1]


def stages_of(text: str, given: dict[str, str]) -> list[Stage]:
    """The stages of a Dockerfile, with its build arguments filled in."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, lines)):
        kind, _, value = line.partition(" ")
        value = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], value)
        if kind == "ARG":
            name, _, default = value.partition("=")
            arguments[name] = given.get(name, default)
        elif kind == "FROM":
            image, _, name = value.partition(" AS ")
            assert re.fullmatch(r"python:3\.\d+-slim", image)
            stages.append(Stage(name, []))
        else:
            stages[-1].steps.append((kind, value))
    return stages


STAGES = stages_of((CONTAINER / "Dockerfile").read_text(), {"TORCH": "cpu"})


def is_sent(path: str) -> bool:
    """Whether ``.dockerignore`` lets a file of the clone through, as its last line that matches says."""
    found = True
    for line in (ROOT / ".dockerignore").read_text().split():
        pattern = line.removeprefix("!").replace("**/", "*")
        tree = [path, *map(str, Path(path).parents)]
        if any(fnmatch.fnmatch(name, pattern) for name in tree):
            found = line.startswith("!")
    return found


# --- what it says -------------------------------------------------------------------------------------------------------


def test_what_the_image_copies_is_sent_to_the_engine_and_little_else() -> None:
    for kind, value in STAGES[0].steps:
        if kind == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists()
                assert is_sent(source), source
    assert is_sent("batchscore/cli/score.py")
    assert is_sent("batchscore/samples/test.jsonl")
    assert not any(
        map(is_sent, (".venv/bin/python", ".git/HEAD", "tests/conftest.py", "quickstart-output/x"))
    )


def test_versions_are_those_that_are_tested() -> None:
    installs = [
        value for kind, value in STAGES[0].steps if kind == "RUN" and " pip " in value.replace("/pip", " pip")
    ]
    assert len(installs) == 2
    assert all("-c constraints.txt" in value for value in installs)
    assert "/whl/cpu" in installs[0]
    assert ".[metrics]" in installs[1]
    cuda = stages_of((CONTAINER / "Dockerfile").read_text(), {"TORCH": "cu130", "EXTRAS": "ray"})
    assert any("/whl/cu130" in value for _, value in cuda[0].steps)


def test_it_is_nobody_and_has_one_entry_point() -> None:
    last = STAGES[-1]
    assert last.last("USER") == "10001:10001"
    assert last.last("ENTRYPOINT") == '["batchscore"]'
    assert last.last("STOPSIGNAL") == "SIGTERM"
    assert not any(kind in {"VOLUME", "EXPOSE", "ADD"} for kind, _ in last.steps)


# --- what it does -------------------------------------------------------------------------------------------------------


def can_overlay() -> bool:
    """Whether this process may mount."""
    tools = all(map(shutil.which, ("unshare", "setpriv", "chroot", "useradd")))
    probe = "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/m && mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m"
    return (
        tools
        and os.geteuid() == 0
        and not subprocess.run(
            ["unshare", "-m", "sh", "-c", probe], check=False, capture_output=True
        ).returncode
    )


def overlay(at: str) -> list[str]:
    return [
        f"mkdir -p {at}/up {at}/work {at}/root",
        f"mount -t overlay overlay -o lowerdir=/,upperdir={at}/up,workdir={at}/work {at}/root",
        f"mount -t proc proc {at}/root/proc && mount --rbind /dev {at}/root/dev",
    ]


CALLER = 54321
"""A user that the image does not know."""
SETTINGS_OF_PIP = shlex.join(
    f"{name}={value}"
    for name, value in os.environ.items()
    if name == "HOME"
    or name.startswith("PIP_")
    or name.lower().endswith(("_proxy", "_ca_bundle", "ssl_cert_file"))
)
"""Where this machine has its packages from, if the environment says it."""
PACKAGES = sysconfig.get_paths()["purelib"]
BASE = Path(sys.base_prefix) / "bin"


def build_lines() -> Iterator[str]:
    """The steps of the image as shell lines, each stage in an overlay below ``/mnt``."""
    # For pip a "no" turns --no-compile on; to compile all of torch is most of the work.
    without_dependencies = (
        "PIP_NO_DEPS=1 PIP_NO_COMPILE=no PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore"
    )
    for number, stage in enumerate(STAGES):
        at, place = f"/mnt/{number}", "/"
        yield from overlay(at)
        for kind, value in stage.steps:
            if kind == "WORKDIR":
                place = value
                yield f"mkdir -p {at}/root{place}"
            elif kind == "RUN":
                yield (
                    f"chroot {at}/root env -i {SETTINGS_OF_PIP} PATH={BASE}:/usr/local/bin:/usr/bin:/bin:/usr/sbin PYTHONPATH={PACKAGES} "
                    f"{without_dependencies} sh -c {shlex.quote(f'cd {place} && {value}')} >&2"
                )
            elif kind == "COPY" and value.startswith("--from="):
                _, source, target = value.split()
                yield f"mkdir -p {at}/root{target} && cp -a /mnt/0/root{source}/. {at}/root{target}"
            elif kind == "COPY":
                *sources, target = value.split()
                for source in sources:
                    if (ROOT / source).is_dir():
                        yield f"mkdir -p {at}/root{place}/{target} && cp -r {ROOT / source}/. {at}/root{place}/{target}"
                    else:
                        yield f"cp {ROOT / source} {at}/root{place}/{target}"


PACKAGES_THERE = "/opt/packages"
"""Where the image has them: they may lie below ``/tmp`` here, which is another one there."""
ROOT_OF_IMAGE = f"/mnt/{len(STAGES) - 1}/root"


def mount_lines(folder: Path) -> Iterator[str]:
    """As ``jobs/container/batchscore.sh`` has it: the root read-only, ``/tmp`` new, and one folder of the caller's."""
    yield f"mkdir {ROOT_OF_IMAGE}{PACKAGES_THERE} && mount --bind {PACKAGES} {ROOT_OF_IMAGE}{PACKAGES_THERE}"
    yield f"mount -o remount,ro {ROOT_OF_IMAGE}"
    yield f"mount --bind {folder} /mnt/given"
    yield f"mount -t tmpfs -o mode=1777 none {ROOT_OF_IMAGE}/tmp && mkdir {ROOT_OF_IMAGE}/tmp/given"
    yield f"mount --bind /mnt/given {ROOT_OF_IMAGE}/tmp/given"


def run_line(user: int, arguments: str) -> str:
    """The entry point, by one who may write nothing of the image's."""
    path, *more = STAGES[-1].last("ENV").split()
    path = path.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    (entry,) = json.loads(STAGES[-1].last("ENTRYPOINT"))
    # The one capability only stands in for a base image that everybody may read: here Python lies below /root.
    become = (
        f"setpriv --reuid {user} --regid {user} --clear-groups --inh-caps +dac_read_search "
        "--ambient-caps +dac_read_search"
    )
    return f"cd / && chroot {ROOT_OF_IMAGE} {become} env -i {path} {' '.join(more)} PYTHONPATH={PACKAGES_THERE} {entry} {arguments}"


@pytest.mark.slow
def test_built_and_run_as_nobody_on_a_read_only_root_it_scores(tiny_bundle: Path, tmp_path: Path) -> None:
    if not can_overlay():
        pytest.skip("needs root and overlay mounts of its own")
    shutil.copytree(tiny_bundle, tmp_path / "model")
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", CALLER, CALLER)
    pd.DataFrame({"text": ["good", "bad"], "label": ["POSITIVE", "NEGATIVE"]}).to_csv(tmp_path / "in.csv")
    score = "score /tmp/given/in.csv --model /tmp/given/model --output /tmp/given/out/run --json"
    lines = [
        "set -e",
        "mount --make-rprivate / && mount -t tmpfs none /mnt && mkdir /mnt/given",
        *build_lines(),
        *mount_lines(tmp_path),
        run_line(int(STAGES[-1].last("USER").split(":")[0]), "--version"),
        run_line(CALLER, score),
        f"! touch {ROOT_OF_IMAGE}/x 2>/dev/null",
    ]
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", "\n".join(lines)],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    version, summary = done.stdout.splitlines()
    assert version.startswith("batchscore, version ")
    assert json.loads(summary)["rows"] == 2
    assert "warning" not in done.stderr.lower(), done.stderr
    assert {path.stat().st_uid for path in (tmp_path / "out" / "run").rglob("*")} == {CALLER}


# --- the script that stands for the command -----------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine that only says how it was called."""
    path = tmp_path / "engine"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 75\n')
    path.chmod(0o755)
    return path


def call(engine: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CONTAINER / "batchscore.sh", *arguments],
        env={"PATH": os.environ["PATH"], "BATCHSCORE_CONTAINER_ENGINE": str(engine), **variables},
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_script_gives_the_container_what_it_may_have_and_no_more(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "in put").mkdir()
    (tmp_path / "out").mkdir()
    done = call(
        engine,
        *("score", "a b.csv", "--model", "m"),
        BATCHSCORE_CONTAINER_READS=str(tmp_path / "in put"),
        BATCHSCORE_CONTAINER_WRITES=str(tmp_path / "out"),
        BATCHSCORE_MAX_REJECTS="3",
        BATCHSCORE_CONTAINER_OPTIONS="--gpus all",
        BATCHSCORE_CONTAINER_IMAGE="here/batchscore@sha256:1",
        SECRET="x",
    )
    said = done.stdout.splitlines()
    assert done.returncode == 75
    assert said[-5:] == ["here/batchscore@sha256:1", "score", "a b.csv", "--model", "m"]
    mounts = [said[k + 1] for k, word in enumerate(said) if word == "--mount"]
    assert mounts == [
        f"type=bind,source={tmp_path}/in put,target={tmp_path}/in put,readonly",
        f"type=bind,source={tmp_path}/out,target={tmp_path}/out",
    ]
    assert [said[k + 1] for k, word in enumerate(said) if word == "--env"] == ["BATCHSCORE_MAX_REJECTS"]
    assert {"--read-only", "--rm", "--init", "--gpus"} <= set(said)
    assert said[said.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"


@pytest.mark.parametrize("folder", ["relative", "/is/not/there"])
def test_the_script_refuses_a_folder_that_cannot_be_mounted(folder: str, engine: Path) -> None:
    done = call(engine, "score", BATCHSCORE_CONTAINER_READS=folder)
    assert done.returncode == 78
    assert folder in done.stderr
