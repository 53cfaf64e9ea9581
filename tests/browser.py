"""Pages as a browser sees them: headless Chromium over its debugging pipe, nothing installed for it.

``python tests/browser.py [--screenshots DIR] PAGE...`` opens each page at desktop and phone width, light and dark, and
tells what ran, what was asked for, what was said on the console and what stuck out.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")
_TOLD = {
    "Network.requestWillBeSent",
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Log.entryAdded",
    "Page.javascriptDialogOpening",
}
_STATE = """(() => {
  const width = document.documentElement.clientWidth;
  const scrolls = e => { for (; e; e = e.parentElement) if (e.classList.contains('wide')) return true; return false; };
  const out = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  const boxes = svg => [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const touching = [...document.querySelectorAll('svg')].flatMap(svg => boxes(svg).flatMap(([a, here], k, all) =>
    all.slice(k + 1).filter(([b, there]) => meet(here, there)).map(([b]) => a + ' / ' + b)));
  const beyond = [...document.querySelectorAll('svg')].flatMap(svg => { const box = svg.getBoundingClientRect();
    return boxes(svg).filter(([a, e]) => e.left < box.left - 1 || e.right > box.right + 1 || e.bottom > box.bottom + 1).map(([a]) => a) });
  return {
    touching, beyond,
    wider: document.documentElement.scrollWidth - width,
    sticking_out: out.slice(0, 5).map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 40)),
    scripts: document.scripts.length,
    pwned: typeof window.pwned,
    text: document.body.innerText.length,
    paper: getComputedStyle(document.body).backgroundColor,
    charts: [...document.querySelectorAll('svg')].map(e => Math.round(e.getBoundingClientRect().width)),
  };
})()"""


@dataclasses.dataclass(frozen=True)
class Look:
    """One page at one width in one colour scheme."""

    page: Path
    size: str
    scheme: str
    events: tuple[str, ...]
    """Requests besides the page itself, console messages, errors, dialogs."""
    state: dict[str, Any]

    @property
    def problems(self) -> list[str]:
        """What should not be."""
        found = list(self.events)
        if self.state["wider"] > 0:
            found.append(f"{self.state['wider']} pixels wider than the window")
        found += [f"sticks out: {each}" for each in self.state["sticking_out"]]
        found += [f"labels touch: {each}" for each in self.state["touching"]]
        found += [f"a label beyond its chart: {each}" for each in self.state["beyond"]]
        if self.state["scripts"] or self.state["pwned"] != "undefined":
            found.append("a script")
        if self.state["text"] < 100:
            found.append("hardly any text")
        return found


class Browser:
    """A headless Chromium that is spoken to in JSON, a message to each NUL byte."""

    def __init__(self, profile: Path) -> None:
        to_child, ours_in = os.pipe()
        ours_out, from_child = os.pipe()
        options = (
            "--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe --no-first-run "
            f"--disable-extensions --user-data-dir={profile} about:blank"
        )
        command = f"exec {CHROMIUM} {options} 3<&{to_child} 4>&{from_child}"
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(to_child, from_child),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._in, self._out = os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._out.fileno(), 1 << 20)
            if not more:
                raise RuntimeError("the browser has gone")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Send a command and wait for its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._in.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._in.flush()
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method: str) -> None:
        """Wait for an event."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._receive())

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        self._in.close()
        self._out.close()
        self._process.wait(timeout=20)


class Tab:
    """One page in a browser, at one width in one colour scheme."""

    def __init__(self, browser: Browser, address: str, size: str, scheme: str, media: str = "") -> None:
        self._browser = browser
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        width, height = SIZES[size]
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == "phone",
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)
        browser.events.clear()
        self._call("Page.navigate", url=address)
        browser.wait_for("Page.loadEventFired")

    def _call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression of ours is; the page itself has none."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get(
            "value"
        )

    def press(self, key: str, code: int, *, text: str = "", shift: bool = False) -> None:
        """A key pressed and released, as a keyboard does it."""
        how = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self._call("Input.dispatchKeyEvent", type="keyDown", **how, **({"text": text} if text else {}))
        self._call("Input.dispatchKeyEvent", type="keyUp", **how)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as a PDF file, on A4."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False, **paper)["data"])

    def close(self) -> None:
        """Close it."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        try:
            yield browser
        finally:
            browser.close()


def look_at(pages: Sequence[Path], screenshots: Path | None = None) -> Iterator[Look]:
    """Open each page at each width in each colour scheme; a ``#fragment`` may follow its name."""
    with browsing() as browser:
        for page in pages:
            for size in SIZES:
                for scheme in SCHEMES:
                    yield _look(browser, page, size, scheme, screenshots)


def _look(browser: Browser, page: Path, size: str, scheme: str, screenshots: Path | None) -> Look:
    name, sign, fragment = page.name.partition("#")
    page = page.with_name(name)
    address = page.resolve().as_uri() + sign + fragment
    tab = Tab(browser, address, size, scheme)
    state = tab.value(_STATE)
    events = tuple(_event(event, address) for event in browser.events if event.get("method") in _TOLD)
    if screenshots is not None:
        stem = "-".join(filter(None, (page.resolve().parent.name, page.stem, fragment)))
        tab.screenshot(screenshots / f"{stem}-{size}-{scheme}.png")
    tab.close()
    return Look(page, size, scheme, tuple(filter(None, events)), state)


def _event(event: dict[str, Any], address: str) -> str:
    params = event["params"]
    if event["method"] == "Network.requestWillBeSent":
        url = str(params["request"]["url"])
        return "" if url == address.partition("#")[0] else f"asked for {url[:200]}"
    return f"{event['method']}: {json.dumps(params)[:300]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args()
    found = 0
    for look in look_at(options.pages, options.screenshots):
        found += len(look.problems)
        click.echo(
            f"{look.page}, {look.size}, {look.scheme}: {'; '.join(look.problems) or 'nothing amiss'} {look.state}"
        )
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
