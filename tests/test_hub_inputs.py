"""Inputs from a data set on the hub: its own client against a hub of our own on the loopback address."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import run_score

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "data/a.csv": b"id,text\n1,A warm film.\n2,A dull one.\n",
    "data/b.csv": b"id,text\n3,Nothing happens.\n",
    "README.md": b"# Reviews\n",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """One public data set, ``anna/reviews``, at one commit."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        type(self).asked.append(path)
        if re.fullmatch(r"/api/datasets/anna/reviews(/revision/(main|v1))?", path):
            self._json({"id": "anna/reviews", "sha": COMMIT, "private": False, "tags": [], "downloads": 0})
        elif path == f"/api/datasets/anna/reviews/tree/{COMMIT}":
            self._json(
                [self._entry(name) for name in FILES]
                + [{"type": "directory", "oid": "0" * 40, "path": "data"}]
            )
        elif (name := path.removeprefix(f"/datasets/anna/reviews/resolve/{COMMIT}/")) in FILES:
            self._send(FILES[name], {"ETag": f'"{self._id(name)}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

    @staticmethod
    def _id(name: str) -> str:
        return hashlib.sha1(FILES[name], usedforsecurity=False).hexdigest()

    def _entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "oid": self._id(name), "size": len(FILES[name]), "path": name}

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of the hub."""
    Hub.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def call(hub: str, home: Path, address: str, model: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """The command, with the hub in the place of the real one."""
    command = [
        sys.executable,
        "-m",
        "batchscore",
        "score",
        address,
        "--model",
        str(model),
        "--output",
        str(output),
    ]
    env = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
    }
    env["HF_TOKEN"] = "hf_very_secret"
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)


def test_a_data_set_is_scored_at_one_commit_with_the_bytes_of_its_files(
    hub: str, tiny_model: Path, tmp_path: Path
) -> None:
    done = call(hub, tmp_path / "home", "hf://datasets/anna/reviews@v1/data", tiny_model, tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "hub/run.json").read_text())
    files = {file["name"]: file for file in facts["files"]}
    assert sorted(files) == ["a.csv", "b.csv"]
    assert files["a.csv"]["path"].startswith("hf://datasets/anna/reviews@v1")
    assert files["a.csv"]["version"] == f"{COMMIT}:{Hub._id('data/a.csv')}"
    assert files["a.csv"]["sha256"] == hashlib.sha256(FILES["data/a.csv"]).hexdigest()
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes(FILES[f"data/{name}"])
    run_score([tmp_path / "a.csv", tmp_path / "b.csv"], tiny_model, tmp_path / "here")
    for name in ("a.csv", "b.csv"):
        there, here = (tmp_path / run / "predictions" / name for run in ("hub", "here"))
        assert there.read_bytes() == here.read_bytes()
    assert len(pd.read_csv(tmp_path / "hub/predictions/a.csv")) == 2
    downloads = [path for path in Hub.asked if "/resolve/" in path]
    assert all("README" not in path for path in downloads)
    assert "hf_very_secret" not in done.stdout + done.stderr


def test_what_is_not_there_is_said_and_no_token_is(hub: str, tiny_model: Path, tmp_path: Path) -> None:
    none = call(hub, tmp_path / "home", "hf://datasets/anna/nothing", tiny_model, tmp_path / "out")
    assert none.returncode == 66, none.stderr
    assert "hf://datasets/anna/nothing" in none.stderr
    down = call(
        "http://127.0.0.1:9", tmp_path / "home", "hf://datasets/anna/reviews", tiny_model, tmp_path / "out"
    )
    assert down.returncode == 74, down.stderr
    assert "hf_very_secret" not in none.stderr + down.stderr
