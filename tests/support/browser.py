"""A headless Chromium, driven through a pipe by its own protocol: what a page says and looks like."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
PATIENCE = 60.0
"""Seconds to wait for an answer, or for something to be on a page: a busy machine takes long."""


class Browser:
    """One page of a browser. Use it as a context.

    Args:
        home: Folder for its profile.
    """

    def __init__(self, home: Path) -> None:
        found = shutil.which("chromium")
        if found is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def place() -> None:  # it reads descriptor 3 and writes 4
            held = [os.dup2(fd, 100 + i) for i, fd in enumerate((theirs_in, theirs_out))]
            for number, fd in zip((3, 4), held, strict=True):
                os.dup2(fd, number)

        self._process = subprocess.Popen(
            [str(found), *OPTIONS, f"--user-data-dir={home}", "--remote-debugging-pipe", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers, self._read, self._session = itertools.count(1), b"", ""
        page = next(t for t in self._ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attach = {"targetId": page["targetId"], "flatten": True}
        self._session = self._ask("Target.attachToTarget", **attach)["sessionId"]
        self._ask("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, address: str, width: int = 1200, height: int = 900, *, dark: bool = False) -> None:
        """Show an address in a window of a size in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._ask("Page.navigate", url="about:blank")  # an address that differs after # only would not load
        self._ask("Page.navigate", url=address)

    def print_layout(self) -> None:
        """Show the page as it would be printed."""
        self._ask("Emulation.setEmulatedMedia", media="print")

    def eval(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.eval("document.body.innerText"))

    def wait(self, condition: str) -> None:
        """Wait until an expression in the page is true.

        Raises:
            AssertionError: If it does not become so; with what the page shows.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.eval(f"!!(document.body && ({condition}))"):
            assert time.monotonic() < deadline, f"not so: {condition}; the page shows: {self.text()[:3000]}"
            time.sleep(0.1)

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """Write what the page looks like as a PNG; `whole` with what lies below the window."""
        data = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer, end, rest = self._read.partition(b"\0")
            if end:
                self._read = rest
                told = json.loads(answer)
                if told.get("id") == number:
                    assert "error" not in told, f"{method}: {told['error']}"
                    return dict(told["result"])
                continue
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser does not answer {method}"
            self._read += os.read(self._in, 1 << 20)
