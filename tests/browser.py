"""A page opened in Chromium, without a library: over two pipes it is told what to do, and tells what happened."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("first-run", "background-networking", "component-update", "sync", "default-apps")
NETWORK = ("http:", "https:", "ws:", "wss:", "ftp:")


class Opened(NamedTuple):
    """How wide a page is beyond its window, its console's complaints, and what it asked of a network."""

    overflow: int
    faults: list[str]
    requests: list[str]


class Browser:
    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._left, self._number = commands, answers, b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if hasattr(self, "_session") else {}
        command = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (said := self._next()).get("id") != self._number:
            self.events.append(said)
        assert "result" in said, said
        result: dict[str, Any] = said["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            if not (more := os.read(self._answers, 1 << 16)):
                raise AssertionError("the browser has ended")
            self._left += more
        said, _, self._left = self._left.partition(b"\0")
        answer: dict[str, Any] = json.loads(said)
        return answer

    def open(self, page: Path | str, width: int) -> Opened:
        """A file, or an address."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(one.get("method") == "Page.loadEventFired" for one in self.events):
            self.events.append(self._next())
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        overflow = self.ask("Runtime.evaluate", expression=script)["result"]["value"]
        return Opened(overflow, [*self._faults()], [one for one in self._asked() if one.startswith(NETWORK)])

    def run(self, script: str) -> Any:
        """An expression's value, awaited where it is a promise, as if a person had just clicked."""
        wanted = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        said = self.ask("Runtime.evaluate", expression=script, **wanted)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Until an expression is true."""
        wait = f"""(async () => {{
            for (let left = {20 * seconds}; left > 0; left--) {{
                if ({condition}) return true;
                await new Promise((go) => setTimeout(go, 50));
            }}
            return false;
        }})()"""
        assert self.run(wait), f"not within {seconds} s: {condition}; {self.run('document.body.innerText')}"

    def choose(self, selector: str, file: Path) -> None:
        """A file in an input, as a person chooses it."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def _faults(self) -> Iterator[str]:
        for one in self.events:
            params = one.get("params", {})
            if one.get("method") == "Runtime.exceptionThrown" or params.get("type") == "error":
                yield str(params)
            elif one.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                yield params["entry"]["text"]

    def _asked(self) -> Iterator[str]:
        for one in self.events:
            if one.get("method") == "Network.requestWillBeSent":
                yield one["params"]["request"]["url"]


@contextmanager
def chromium(folder: Path, *more: str) -> Iterator[Browser]:
    """`folder` is for its own files; more: flags."""
    (theirs, commands), (answers, said) = os.pipe(), os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    flags += [f"--no-{name}" if name == "first-run" else f"--disable-{name}" for name in QUIET]
    flags += more
    script = f'exec "$0" "$@" 3<&{theirs} 4>&{said}'
    with open(folder.parent / "browser.log", "w") as log:
        process = subprocess.Popen(
            ["bash", "-c", script, str(CHROMIUM), *flags],
            pass_fds=(theirs, said),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(theirs)
    os.close(said)
    try:
        yield Browser(commands, answers)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(commands)
        os.close(answers)
