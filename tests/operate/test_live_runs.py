"""Displays that are redrawn, on real pseudo-terminals."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from desk import REPOSITORY, Desk
from written_runs import begin_run, experiment, finish_run

from sia.atomic import write_json
from sia.run.records import Study

ROWS = 20
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SUBMIT = (
    "import time\nfrom sia.run.folder import runs_of\nfrom sia.operate.watch import SweepDisplay\n"
    "with SweepDisplay(runs_of('many')): time.sleep(60)"
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """30 runs, of which 24 are finished, 5 failed and 1 has not begun."""
    made = Desk(tmp_path / "desk")
    for seed in range(30):
        config = experiment(**{"training.seed": seed})
        if seed < 24:
            finish_run(made.folder / "runs", "many", config)
            continue
        run = begin_run(made.folder / "runs", "many", config)
        if seed < 29:
            write_json(run.stage(1).failed, {"error": "RuntimeError: [enforce fail] " + "long " * 60})
    Study(question="Are many better than few?").write(made.folder / "runs" / "many" / "study.json")
    return made


def frames(desk: Desk, arguments: list[str], width: int, count: int = 3) -> list[list[str]]:
    """What a terminal of so many columns is shown, each time without its codes."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, width, 0, 0))
    environment = {**desk.environment, "TERM": "xterm", "PYTHONPATH": str(REPOSITORY)}
    for told in ("COLUMNS", "LINES"):
        environment.pop(told, None)
    started = subprocess.Popen(
        arguments, cwd=desk.folder, env=environment, stdin=theirs, stdout=theirs, start_new_session=True
    )
    os.close(theirs)
    text, deadline = "", time.monotonic() + 30
    while text.count("30 runs") <= count and time.monotonic() < deadline:
        text += os.read(ours, 65536).decode(errors="replace")
    started.kill()
    started.wait()
    os.close(ours)
    # Each frame begins where the cursor goes back to the first line of the one before.
    parts = re.split(r"(?:\x1b\[1A\x1b\[2K)+", text)
    return [CODES.sub("", part).replace("\r", "").rstrip("\n").split("\n") for part in parts[:count]]


@pytest.mark.parametrize(("display", "width"), [("status", 60), ("submit", 80)])
def test_every_frame_fits_the_terminal(desk: Desk, display: str, width: int) -> None:
    watch = [sys.executable, str(REPOSITORY / "jobs" / "status.py"), "many", "--watch", "0.1"]
    for frame in frames(desk, watch if display == "status" else [sys.executable, "-c", SUBMIT], width):
        assert len(frame) < ROWS and max(map(len, frame)) <= width, "\n".join(frame)
        assert frame[0] == "Are many better than few?" and "30 runs: 24 finished, 5 failed, 1 waiting" in frame
        states = [line.split()[1] for line in frame if line.startswith(" DG2A64-")]
        assert states[:6] == ["failed"] * 5 + ["waiting"] and set(states[6:]) <= {"finished"}
        (folded,) = [line for line in frame if " more: " in line]
        rest = 30 - len(states)
        assert folded == f"  ... and {rest} more: {rest} finished"
        assert len([line for line in frame if "RuntimeError: [enforce fail] long" in line]) == 3
        assert "... and 2 more of such lines: python jobs/status.py many" in frame
