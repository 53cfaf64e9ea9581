"""What the page asks its server: rows, counts, and to take down a verdict. One request is answered after the other."""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import BatchscoreError, UsageError, missing_extra
from batchscore.evaluation.slices import NULL
from batchscore.reviewing.guard import MOST_BODY, Guard
from batchscore.reviewing.judging import estimates, verdict_of
from batchscore.reviewing.queue import Filter, label_of, shown
from batchscore.reviewing.session import Review
from batchscore.reviewing.store import DRAWN, WORST
from batchscore.system.documents import DocumentError, Shape, checked, parse_json

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

EXTRA = "review"
_MOST_ROWS = 50
_MOST_QUERY = 500
"""Characters that are searched for."""
_VERDICT: Shape = {"key": str, "answer": str, "label?": str, "tab": str, "by": str}
_UNDO: Shape = {"by": str}
_BY = 64
"""Characters of a browser's name for itself."""
_STATUS = {2: 400, 65: 500, 74: 507, 75: 503}
"""Exit code of an error → status of the answer."""


def page_and_policy() -> tuple[str, str]:
    """The page, whole in one file, and the policy under which a browser runs its script and no other.

    Raises:
        OSError: the package's own files cannot be read.
    """
    own = importlib.resources.files("batchscore")
    style = (own / "reports/style.css").read_text("utf-8") + (own / "reviewing/page.css").read_text("utf-8")
    script = (own / "reviewing/page.js").read_text("utf-8")
    page = (own / "reviewing/page.html").read_text("utf-8")
    page = page.replace("/*style*/", style).replace("/*script*/", script)
    policy = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(script)}'",
        "style-src": f"'sha256-{_digest(style)}'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return page, "; ".join(f"{name} {value}" for name, value in policy.items())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def app_of(review: Review, token: str) -> ASGIApp:
    """The application that serves a review to whoever has the token.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse
        from starlette.routing import Route
    except ImportError as error:
        raise missing_extra("The page of batchscore review", EXTRA) from error
    page, policy = page_and_policy()

    async def page_itself(request: Request) -> Response:  # noqa: ARG001 - Starlette's own signature
        return HTMLResponse(page)

    routes = [Route("/", page_itself)]
    for path, method, answer in (
        ("/api/run", "GET", _run),
        ("/api/rows", "GET", _rows),
        ("/api/row", "GET", _row),
        ("/api/changes", "GET", _changes),
        ("/api/estimates", "GET", _estimates),
        ("/api/verdicts", "POST", _give),
        ("/api/undo", "POST", _undo),
    ):
        routes.append(Route(path, functools.partial(_answered, review, answer), methods=[method]))
    app: Starlette = Starlette(routes=routes)
    return Guard(app, token, policy)


Answer = Callable[[Review, Mapping[str, Any]], Mapping[str, Any]]


async def _answered(review: Review, answer: Answer, request: Request) -> Response:
    """What a function makes of a request, as JSON; an error as a sentence."""
    from starlette.responses import Response

    try:
        asked = await _body(request) if request.method == "POST" else dict(request.query_params)
        value, status = answer(review, asked), 200
    except DocumentError as error:
        value, status = {"error": str(error)}, 400
    except (OverflowError, UnicodeEncodeError):
        value, status = {"error": "a number or a text is none that a database takes"}, 400
    except BatchscoreError as error:
        value, status = {"error": str(error)}, _STATUS.get(error.exit_code, 500)
    content = json.dumps(value, ensure_ascii=True, allow_nan=False).encode()
    return Response(content, status, media_type="application/json")


async def _body(request: Request) -> Mapping[str, Any]:
    if request.headers.get("content-type") != "application/json":
        raise DocumentError("the body is no JSON")
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MOST_BODY:
            raise DocumentError("the body is too long")
    value = parse_json(content)
    if not isinstance(value, dict):
        raise DocumentError("the body is no object")
    return value


def _run(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001 - an Answer
    """What the page needs once."""
    run, queue = review.run, review.queue
    pairs = [[g, p, label_of(run, g), label_of(run, p), rows] for g, p, rows in queue.pairs()]
    return {
        "name": run.path.absolute().name,
        "labels": list(run.labels),
        "files": list(run.names),
        "pairs": pairs,
        "slices": [list(each) for each in queue.slices()],
        "null": NULL,
        "facts": dict(queue.facts),
        **_counts(review),
        "blind": review.settings.is_blind,
        "unsure_below": review.settings.unsure_below,
        "last": review.store.last,
    }


def _counts(review: Review) -> dict[str, Any]:
    """Rows of each tab, and how many of them have a verdict."""
    return {tab: review.queue.counts(Filter(tab=tab)) for tab in (WORST, DRAWN)}


def _rows(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """A page of rows, and how many a filter has in all if that is asked for."""
    wanted = _filter(asked)
    before = _number(asked, "before") if "before" in asked else None
    most = max(1, min(_number(asked, "most", 20), _MOST_ROWS))
    rows = review.queue.rows(wanted, after=_number(asked, "after", -1), before=before, most=most)
    found: dict[str, Any] = {"rows": [shown(review.run, row) for row in rows]}
    if asked.get("count"):
        found["counts"] = review.queue.counts(wanted)
    return found


def _filter(asked: Mapping[str, Any]) -> Filter:
    pair, cut, reviewed = asked.get("pair"), asked.get("slice"), asked.get("reviewed")
    try:
        return Filter(
            tab=_tab(asked),
            pair=None if not pair else _pair(pair),
            slice=None if not cut else _two(json.loads(cut)),
            file=_number(asked, "file") if asked.get("file") else None,
            text=asked.get("text", "")[:_MOST_QUERY],
            reviewed={"yes": True, "no": False}.get(reviewed or ""),
        )
    except (ValueError, RecursionError) as error:
        raise DocumentError("the filter cannot be read") from error


def _pair(text: str) -> tuple[int, int]:
    given, predicted = text.split(",")
    return int(given), int(predicted)


def _two(value: Any) -> tuple[str, str]:
    name, cell = checked(value, [str])
    return name, cell


def _tab(asked: Mapping[str, Any]) -> str:
    tab = asked.get("tab", WORST)
    if tab not in (WORST, DRAWN):
        raise DocumentError("there is no such tab")
    return str(tab)


def _number(asked: Mapping[str, Any], name: str, default: int = 0) -> int:
    try:
        value = int(asked.get(name, default))
    except ValueError:
        value = 2**63
    if abs(value) >= 2**62:
        raise DocumentError(f"{name} is no number")
    return value


def _row(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    row = review.queue.row(_number(asked, "key"), _tab(asked))
    return {"row": None if row is None else shown(review.run, row)}


def _changes(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """What happened since an event: the rows, and what holds of each now."""
    events = review.store.events(_number(asked, "since"))
    found = {}
    for key in dict.fromkeys(event.key for event in events):
        now = review.store.standing(key)
        found[str(key)] = (
            None if now is None else {"kind": now.kind, "label": now.label, "number": now.number}
        )
    last = events[-1].number if events else _number(asked, "since")
    return {"rows": found, "last": last}


def _estimates(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG001 - an Answer
    return {**_counts(review), "true_accuracy": estimates(review.queue)}


def _give(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take down a verdict; it is on disk before this returns."""
    checked(asked, _VERDICT)
    tab = _tab(asked)
    row = review.queue.row(_number(asked, "key"), tab)
    if row is None:
        raise UsageError("There is no such row for review.")
    kind, label = verdict_of(review.run, row, asked["answer"], asked.get("label"))
    verdict = review.store.give(row.key, kind, label, tab=tab, by=asked["by"][:_BY])
    return {"verdict": {"kind": verdict.kind, "label": verdict.label, "number": verdict.number}}


def _undo(review: Review, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take back a verdict, and say of which row it was."""
    checked(asked, _UNDO)
    verdict = review.store.take_back(asked["by"][:_BY])
    if verdict is None:
        return {"row": None}
    tab = verdict.tab if verdict.tab in (WORST, DRAWN) else WORST
    row = review.queue.row(verdict.key, tab) or review.queue.row(verdict.key, WORST)
    return {"row": None if row is None else shown(review.run, row), "tab": tab, "kind": verdict.kind}
