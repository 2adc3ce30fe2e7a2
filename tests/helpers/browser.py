"""A headless Chromium by chromedriver's plain WebDriver protocol: no package needed, no network."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from helpers.processes import wait_until

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
ARGUMENTS = [
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "force-device-scale-factor=1",
]
KEYS = {
    "left": "\ue012",
    "right": "\ue014",
    "home": "\ue011",
    "end": "\ue010",
    "enter": "\ue007",
    "tab": "\ue004",
    "shift": "\ue008",
}  # WebDriver's codes
START_S = 30  # for chromedriver and the browser to come up

_open = build_opener(ProxyHandler({})).open  # the driver is on this machine, whatever proxy there is


@dataclass
class Browser:
    """One window. Methods raise AssertionError with the driver's message."""

    session: str

    def call(self, path: str, body: Any = None, method: str = "POST") -> Any:
        return _call(f"{self.session}/{path}", body or {}, method)

    def open(self, page: Path) -> None:
        self.call("url", {"url": page.as_uri()})
        self.until(
            'performance.getEntriesByType("paint").length'
        )  # Chromium drops what is typed before the first paint

    def js(self, body: str, *arguments: Any) -> Any:
        """What a function of ``body`` returns."""
        return self.call("execute/sync", {"script": body, "args": arguments})

    def size(self, width: int, height: int) -> None:
        self.call("window/rect", {"width": width, "height": height})

    def shot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("screenshot", method="GET")))

    def move(self, x: float, y: float, *then: str) -> None:
        """The mouse to a place in the window, CSS pixels; then ``pointerDown`` and such."""
        steps = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            *({"type": name, "button": 0} for name in then),
        ]
        self.call(
            "actions",
            {"actions": [{"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}]},
        )

    def press(self, *keys: str, modifier: str | None = None) -> None:
        """Keys by name or as they are, one after the other, while ``modifier`` is down."""
        steps = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        if modifier:
            steps = [{"type": "keyDown", "value": KEYS[modifier]}, *steps, {"type": "keyUp", "value": KEYS[modifier]}]
        self.call("actions", {"actions": [{"type": "key", "id": "keys", "actions": steps}]})

    def until(self, body: str, seconds: float = 5) -> None:
        """Wait for ``return {body}`` to be true."""
        wait_until(lambda: self.js(f"return {body}"), seconds)

    def errors(self) -> list[str]:
        """Errors and warnings of the console since the last call."""
        return [
            entry["message"]
            for entry in self.call("se/log", {"type": "browser"})
            if entry["level"] in ("SEVERE", "WARNING")
        ]


@contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """A browser whose profile is in ``home``."""
    process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    session = None
    try:
        port = next(
            line.rsplit(" ", 1)[1].strip(" .\n") for line in process.stdout if "started successfully on port" in line
        )
        options = {
            "binary": BROWSER,
            "args": [*(f"--{name}" for name in ARGUMENTS), f"--user-data-dir={home / 'profile'}"],
        }
        capabilities = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        reply = _call(f"http://127.0.0.1:{port}/session", {"capabilities": {"alwaysMatch": capabilities}}, "POST")
        session = f"http://127.0.0.1:{port}/session/{reply['sessionId']}"
        yield Browser(session)
    finally:
        if session:
            _call(session, None, "DELETE")  # ends the browser, too
        process.terminate()
        process.wait(START_S)


def _call(url: str, body: Any, method: str) -> Any:
    request = Request(
        url,
        None if method != "POST" else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    try:
        with _open(request, timeout=START_S) as reply:
            return json.load(reply)["value"]
    except HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error
