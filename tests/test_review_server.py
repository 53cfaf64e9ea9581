"""The server of a review's page: who is answered, what is answered, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import naughty
import pytest
from review_samples import LABELS, copied, reviewed, scored, table
from starlette.testclient import TestClient

from batchscore.errors import StorageError
from batchscore.reviewing.app import app_of, page_and_policy
from batchscore.reviewing.guard import MOST_BODY
from batchscore.reviewing.queue import Filter
from batchscore.reviewing.server import serving
from batchscore.reviewing.session import Review
from batchscore.reviewing.store import DRAWN, WORST

TOKEN = "t0ken-" * 7
HOST = "127.0.0.1:8765"
OURS = {"Authorization": f"Bearer {TOKEN}", "Origin": f"http://{HOST}"}


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty rows, two columns to slice by among them."""
    return scored(tiny_model, tmp_path_factory.mktemp("scored"), table(60), slice_columns=("shop",))


@pytest.fixture
def review(run: Path, tmp_path: Path) -> Iterator[Review]:
    with reviewed(copied(run, tmp_path)) as opened:
        yield opened


@pytest.fixture
def client(review: Review) -> TestClient:
    """Asks as the page does."""
    return TestClient(app_of(review, TOKEN), base_url=f"http://{HOST}", headers=OURS)


def verdict(review: Review, answer: str = "unsure", **more: Any) -> dict[str, Any]:
    """What the page sends about the first row."""
    row = review.queue.rows(Filter(reviewed=False), most=1)[0]
    return {"key": str(row.key), "answer": answer, "tab": WORST, "by": "me", **more}


# ------------------------------------------------------------------------------------------------------ who is answered


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer other"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Host": "evil.example"},
        {"Host": f"evil.example#{HOST}"},
        {"Host": "127.0.0.1.evil.example:8765"},
        {"Host": "localhost.evil.example"},
        {"Host": ""},
        {"Host": "evil.example", "Origin": "http://evil.example"},  # whose name was made to lead here
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": f"https://{HOST}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_stranger_is_turned_away_and_told_nothing(
    client: TestClient, review: Review, headers: dict[str, str]
) -> None:
    for answer in (
        client.get("/api/rows", headers=headers),
        client.post("/api/verdicts", json=verdict(review), headers=headers),
        client.get(
            "/", params={"token": TOKEN if "Authorization" not in headers else "other"}, headers=headers
        ),
    ):
        assert answer.status_code == 403
        assert answer.text.startswith("turned away: ")
        assert len(answer.text) < 50
    assert review.store.last == 0


def test_a_write_without_an_origin_is_turned_away(client: TestClient, review: Review) -> None:
    del client.headers["Origin"]
    assert client.get("/api/rows").status_code == 200
    assert client.post("/api/verdicts", json=verdict(review)).status_code == 403


def test_a_token_in_the_address_opens_the_page_alone(client: TestClient, review: Review) -> None:
    del client.headers["Authorization"]
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    assert client.get("/").status_code == 403
    assert client.get("/api/rows", params={"token": TOKEN}).status_code == 403
    assert client.post("/api/verdicts", params={"token": TOKEN}, json=verdict(review)).status_code == 403


def test_a_forwarded_port_is_fine(client: TestClient, review: Review) -> None:
    elsewhere = {"Host": "localhost:1234", "Origin": "http://localhost:1234"}
    assert client.post("/api/verdicts", json=verdict(review), headers=elsewhere).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/rows", "/nowhere", "/api/verdicts"])
def test_every_answer_binds_the_browser_and_is_kept_nowhere(client: TestClient, path: str) -> None:
    for answer in (
        client.get(path, params={"token": TOKEN}),
        client.get(path, headers={"Host": "evil.example"}),
    ):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "access-control-allow-origin" not in answer.headers
        assert "set-cookie" not in answer.headers


def test_the_page_has_one_script_and_asks_nobody_else() -> None:
    page, policy = page_and_policy()
    assert page.count("<script") == page.count("<style") == 1
    assert "style=" not in page.partition("<body>")[2]
    assert not re.search(r"\son\w+=", page.partition("<script>")[0])
    assert re.findall(r"(?:https?:)?//[\w.]+", page.partition("<script>")[0].partition("</style>")[2]) == []
    script = page.partition("<script>")[2]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|https?:", script
    )
    assert policy.count("sha256-") == 2


# ------------------------------------------------------------------------------------------------------ what is answered


def test_rows_come_as_they_are_and_verdicts_are_taken_down(client: TestClient, review: Review) -> None:
    told = client.get("/api/run").json()
    assert (told["labels"], told["worst"]["reviewed"], told["drawn"]["rows"]) == (list(LABELS), 0, 20)
    found = client.get("/api/rows", params={"most": 3, "count": 1, "reviewed": "no"}).json()
    assert found["counts"]["rows"] == told["worst"]["rows"]
    row = found["rows"][0]
    assert (row["given"], row["predicted"]) in [LABELS, LABELS[::-1]]
    given = client.post("/api/verdicts", json=verdict(review, "other", label=row["predicted"])).json()[
        "verdict"
    ]
    assert given == {"kind": "prediction", "label": row["predicted"], "number": 1}
    assert client.get("/api/changes", params={"since": 0}).json() == {
        "rows": {row["key"]: given},
        "last": 1,
    }
    assert client.get("/api/row", params={"key": row["key"]}).json()["row"]["verdict"] == given
    taken = client.post("/api/undo", json={"by": "me"}).json()
    assert (taken["row"]["key"], taken["row"]["verdict"], taken["tab"]) == (row["key"], None, WORST)
    assert client.post("/api/undo", json={"by": "me"}).json() == {"row": None}


def test_the_estimate_is_there_once_rows_were_drawn(client: TestClient, review: Review) -> None:
    assert client.get("/api/estimates").json()["true_accuracy"] is None
    for row in client.get("/api/rows", params={"tab": DRAWN, "most": 50}).json()["rows"]:
        body = {"key": row["key"], "answer": "prediction", "tab": DRAWN, "by": "me"}
        assert client.post("/api/verdicts", json=body).status_code == 200
    found = client.get("/api/estimates").json()["true_accuracy"]
    assert (found["is_whole"], found["model"]["value"], found["model"]["drawn"]) == (True, 1.0, 20)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "17777"},
        {"key": "x"},
        {"key": 7},
        {"answer": "perhaps"},
        {"answer": "other"},
        {"answer": "other", "label": "SO LALA"},
        {"tab": "elsewhere"},
        {"by": None},
        {"label": [1]},
    ],
    ids=str,
)
def test_an_answer_that_cannot_be_meant_is_not_taken_down(
    client: TestClient, review: Review, change: dict[str, Any]
) -> None:
    answer = client.post("/api/verdicts", json=verdict(review) | change)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert review.store.last == 0


def test_bodies_are_short_json_or_refused(client: TestClient, review: Review) -> None:
    body = json.dumps(verdict(review))
    assert (
        client.post("/api/verdicts", content=body).status_code == 400
    )  # a form of another page could send that
    long = body[:-1] + " " * MOST_BODY + "}"
    assert (
        client.post("/api/verdicts", content=long, headers={"Content-Type": "application/json"}).status_code
        == 413
    )

    def pieces() -> Iterator[bytes]:
        yield long.encode()

    assert client.post("/api/verdicts", content=pieces()).status_code == 413
    for odd in ("[]", "{", "[" * 9000, '{"a":1,"a":2}', "1e999"):
        answer = client.post("/api/verdicts", content=odd, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
    assert review.store.last == 0


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "most=99999",
        "pair=1",
        "pair=a,b",
        "slice=[",
        "slice=[1,2]",
        "tab=x",
        f"after={2**80}",
        "file=-1",
        f"file={2**50}",
        f"pair={2**80},1",
        "slice=%5B%22a%22%2C%22%5Cud800%22%5D",
    ],
)
def test_an_odd_question_is_answered_with_a_sentence_or_no_rows(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/rows?{query}")
    assert answer.status_code in (200, 400)
    assert len(answer.json().get("rows", [])) <= 50


def test_a_text_is_not_read_as_anything_else(tiny_model: Path, tmp_path: Path) -> None:
    rows = table(len(naughty.STRINGS))
    rows["text"] = [
        text.encode("utf-8", "replace").decode() + f" {k}" for k, text in enumerate(naughty.STRINGS)
    ]
    run = scored(tiny_model, tmp_path, rows, "r.parquet")
    with reviewed(run, unsure_below=1.0) as review:
        client = TestClient(app_of(review, TOKEN), base_url=f"http://{HOST}", headers=OURS)
        found: dict[str, str] = {}
        place = -1
        while page := client.get("/api/rows", params={"after": place, "most": 50}).json()["rows"]:
            place = page[-1]["place"]
            found |= {row["id"]: row["texts"][0] for row in page}
        assert found == dict(zip(rows["id"], rows["text"], strict=True))
        for text in naughty.STRINGS[:40]:
            asked = text.encode("utf-8", "replace").decode()[:100]
            assert client.get("/api/rows", params={"text": asked, "count": 1}).json()["counts"]["rows"] >= 1


def test_a_full_disk_is_told_and_nothing_is_confirmed(client: TestClient, review: Review) -> None:
    review.store._connection.execute(f"PRAGMA max_page_count = {review.store._value('PRAGMA page_count')}")
    statuses = [
        client.post("/api/verdicts", json=verdict(review, by="x" * 64)).status_code for _ in range(60)
    ]
    assert set(statuses) == {200, 507}
    assert review.store.last == statuses.count(200)
    assert review.store.counts()["unsure"] == min(
        statuses.count(200), review.queue.counts(Filter())["reviewed"]
    )


# ------------------------------------------------------------------------------------------------------- a real server


def test_a_port_that_is_taken_is_told(review: Review) -> None:
    with serving(review) as (address, _):
        port = int(address.split(":")[2].partition("/")[0])
        with (
            pytest.raises(StorageError, match=f"Port {port} of 127.0.0.1 cannot be used: it is taken"),
            serving(review, port),
        ):
            pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_and_what_was_said_is_kept(
    run: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path = copied(run, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "batchscore", "review", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["address"]
    base, token = address.partition("?token=")[::2]
    assert base.startswith("http://127.0.0.1:")
    headers = {
        "Authorization": f"Bearer {token}",
        "Origin": base.rstrip("/"),
        "Content-Type": "application/json",
    }
    asked = urllib.request.Request(f"{base}api/rows?most=1", headers=headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:  # a connection that stays open
        key = json.loads(answer.read())["rows"][0]["key"]
    body = json.dumps({"key": key, "answer": "unsure", "tab": WORST, "by": "me"}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(f"{base}api/verdicts", body, headers), timeout=30
    ) as answer:
        assert json.loads(answer.read())["verdict"]["number"] == 1
    process.send_signal(number)
    _, told = process.communicate(timeout=5 + 5)
    assert process.returncode == code
    assert "every verdict is kept" in told
    assert "Traceback" not in told
    with reviewed(path) as review:
        assert review.store.counts()["unsure"] == 1
