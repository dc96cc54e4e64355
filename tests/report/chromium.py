"""A browser for tests: Debian's Chromium without a window, asked through two pipes in the DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE = 30.0


@contextmanager
def chromium(profile: Path) -> Iterator["Browser"]:
    """A running browser with an empty profile of its own."""
    assert PROGRAM, "no chromium"
    ask_here, ask_there = os.pipe()
    told_here, told_there = os.pipe()
    # The protocol wants descriptors 3 and 4. A shell sets them: between fork and exec Python may not.
    wired = ["bash", "-c", f'exec "$@" 3<&{ask_here} 4>&{told_there}', "chromium"]
    process = subprocess.Popen(
        [*wired, PROGRAM, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(ask_here, told_there), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(ask_here)
    os.close(told_there)
    try:
        yield Browser(ask_there, told_here)
    finally:
        os.close(ask_there)
        process.terminate()
        process.wait(_PATIENCE)
        os.close(told_here)


class Browser:
    """Commands and events of one browser."""

    def __init__(self, ask: int, told: int) -> None:
        self._ask, self._told = ask, told
        self._last = 0
        self._read = b""
        self.events: list[dict[str, Any]] = []

    def command(self, method: str, session: str | None = None, **params: Any) -> Any:
        """The result of a command. Events that come meanwhile are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self.events.append(answer)

    def _send(self, message: bytes) -> None:
        # A pipe takes as much as it has room for.
        while message:
            message = message[os.write(self._ask, message) :]

    def wait_for(self, method: str, session: str) -> None:
        """Returns as soon as this event has come."""
        while not any(each["method"] == method and each.get("sessionId") == session for each in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._read:
            if not select.select([self._told], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser says nothing")
            self._read += os.read(self._told, 1 << 20)
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, file: Path, width: int = 1440, theme: str = "light", *, scripts: bool = True) -> "Tab":
        """A page of its own, loaded."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.command(f"{domain}.enable")
        tab.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        tab.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        tab.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        tab.command("Page.navigate", url=file.as_uri())
        self.wait_for("Page.loadEventFired", session)
        return tab


class Tab:
    """One page in the browser."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def command(self, method: str, **params: Any) -> Any:
        return self._browser.command(method, self._session, **params)

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; a promise is waited for."""
        result = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def events(self, *methods: str) -> list[dict[str, Any]]:
        """What the page did, of these kinds."""
        return [
            each["params"]
            for each in self._browser.events
            if each["method"] in methods and each.get("sessionId") == self._session
        ]

    def picture(self, top: int = 0, height: int = 900) -> bytes:
        """A piece of the page as PNG."""
        width = self.ask("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = self.command("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        self._browser.command("Target.closeTarget", targetId=self._target)
