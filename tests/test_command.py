"""How a command ends: one line, with the cure that fits, and an exit status that says whose fault it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, resource, sys, time
from pathlib import Path
from sia.atomic import write_text
from sia.command import console, run

path = Path(sys.argv[2])

def full() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    write_text(path, "x" * 1000)

def closed() -> None:
    path.write_text("secret")
    path.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(4711)
    path.read_text()

def absent() -> None:
    path.read_text()

def make() -> None:
    path.mkdir()

def table() -> None:
    console().print("5 × 山")

def text() -> None:
    print("naïve → 山")

def wait() -> None:
    print("begun", flush=True)
    time.sleep(60)

run(globals()[sys.argv[1]])
"""


def command(does: str, path: object = "") -> list[str]:
    return [sys.executable, "-c", CODE, does, str(path)]


@pytest.mark.parametrize(
    ("fault", "cure"),
    [("full", "free some room"), ("closed", "let this user read it"), ("absent", "see whether it is there")],
)
def test_the_cure_fits_the_fault(tmp_path: Path, fault: str, cure: str) -> None:
    path = tmp_path / "rows.jsonl"
    done = subprocess.run(command(fault, path), capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f"error: {path}: ") and cure in line
    assert path.exists() == (fault == "closed")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("printed", ["table", "text"])
def test_a_reader_that_has_gone_is_no_error(printed: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command(printed), env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("printed", "said"), [("text", "na\\xefve"), ("table", "5 \\xd7")])
def test_a_stream_that_knows_ascii_alone_is_written_what_it_can(printed: str, said: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command(printed), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and said in done.stdout


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o755), (0o007, 0o750), (0o077, 0o700)])
def test_nobody_else_may_write_into_what_a_command_makes(tmp_path: Path, umask: int, mode: int) -> None:
    subprocess.run(command("make", tmp_path / "new"), umask=umask, check=True)
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode


def test_a_command_that_is_told_to_end_says_so_in_one_line() -> None:
    with subprocess.Popen(command("wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None and one.stdout.readline() == "begun\n"
        one.terminate()
        assert one.communicate(timeout=30)[1] == "ended by SIGTERM\n"
    assert one.returncode == 143
