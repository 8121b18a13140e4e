"""A page in Chromium, driven by its protocol over two pipes; without Chromium, a test that asks for it is skipped."""

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


class Page:
    """One tab."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._number, self._session = write, os.fdopen(read, "rb", 0), b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **given: Any) -> Any:
        """A command's result; events are let pass."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": given, "sessionId": self._session or None}
        os.write(self._write, json.dumps({key: value for key, value in asked.items() if value}).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = self._read.read(1 << 20)
            assert got, "Chromium has ended"
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, address: str) -> None:
        self.call("Page.enable")
        self.call("Page.navigate", url=address)
        self.until("document.readyState == 'complete' && location.href != 'about:blank'")

    def js(self, expression: str) -> Any:
        """An expression's value, awaited where it is a promise."""
        wanted = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        result = self.call("Runtime.evaluate", expression=expression, **wanted)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Until an expression is true."""
        looked = f"""(async () => {{
            for (let left = {20 * seconds}; left > 0; left--) {{
                if ({condition}) return true;
                await new Promise((go) => setTimeout(go, 50));
            }}
            return false;
        }})()"""
        assert self.js(looked), f"not within {seconds} s: {condition}; {self.js('document.body.innerText')}"

    def choose(self, selector: str, file: Path) -> None:
        """A file in an input, as a person chooses it."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def picture(self, path: Path, width: int, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextmanager
def page(profile: Path, *flags: str) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; apt-get install chromium")
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    # It reads commands from 3 and answers to 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{asked} 4>&{answer}', "bash"]
    command = [*shell, CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=(asked, answer), **quiet)  # type: ignore[call-overload]
    os.close(asked)
    os.close(answer)
    try:
        yield Page(ask, answered)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ask)
