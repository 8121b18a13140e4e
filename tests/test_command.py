"""A file that cannot be read or written is told in one line, with the cure that fits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, resource, signal, sys
from pathlib import Path
from sia.atomic import write_text
from sia.command import run

path = Path(sys.argv[1])

def full() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
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

run({"full": full, "closed": closed, "absent": absent}[sys.argv[2]])
"""


@pytest.mark.parametrize(
    ("fault", "cure"),
    [("full", "free some room"), ("closed", "let this user read it"), ("absent", "see whether it is there")],
)
def test_the_cure_fits_the_fault(tmp_path: Path, fault: str, cure: str) -> None:
    path = tmp_path / "rows.jsonl"
    done = subprocess.run([sys.executable, "-c", CODE, str(path), fault], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f"error: {path}: ") and cure in line
    assert path.exists() == (fault == "closed")


PRINTS = """
import sys
from sia.command import console, run

run({"table": lambda: console().print("row"), "text": lambda: print("row")}[sys.argv[1]])
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("printed", ["table", "text"])
def test_a_reader_that_has_gone_is_no_error(printed: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, printed],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_else_may_write_into_what_a_command_makes(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from sia.command import run; run(lambda: Path({str(tmp_path / 'new')!r}).mkdir())"
    )
    for umask, mode in ((0o002, 0o755), (0o007, 0o750), (0o077, 0o700)):
        subprocess.run([sys.executable, "-c", code], umask=umask, check=True)
        assert (tmp_path / "new").stat().st_mode & 0o777 == mode
        (tmp_path / "new").rmdir()


ENDS = """
import time
from sia.command import run

def main() -> None:
    print("begun", flush=True)
    time.sleep(60)

run(main)
"""


def test_a_command_that_is_told_to_end_says_so_in_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None and one.stdout.readline() == "begun\n"
        one.terminate()
        assert one.communicate(timeout=30)[1] == "ended by SIGTERM\n"
    assert one.returncode == 143


def test_a_stream_that_knows_ascii_alone_is_written_what_it_can() -> None:
    code = "from sia.command import console, run\nrun(lambda: (print('naïve → 山'), console().print('5 × 山'))[1])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "na\\xefve" in done.stdout and "5 \\xd7" in done.stdout
