"""How a command ends: one line, with the cure that fits, and an exit status that says whose fault it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, resource, sys, threading, time
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

def wait_beside() -> None:
    threading.Thread(target=time.sleep, args=(60,)).start()
    wait()

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


@pytest.mark.parametrize(("printed", "said"), [("text", "na\\xefve -> \\u5c71"), ("table", "5 x \\u5c71")])
def test_a_stream_that_knows_ascii_alone_is_written_what_it_can(printed: str, said: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command(printed), env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and said in done.stdout


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o755), (0o007, 0o750), (0o077, 0o700)])
def test_nobody_else_may_write_into_what_a_command_makes(tmp_path: Path, umask: int, mode: int) -> None:
    subprocess.run(command("make", tmp_path / "new"), umask=umask, check=True)
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("does", ["wait", "wait_beside"])
def test_a_command_that_is_told_to_end_says_so_in_one_line(does: str) -> None:
    with subprocess.Popen(command(does), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None and one.stdout.readline() == "begun\n"
        one.terminate()
        assert one.communicate(timeout=30)[1] == "ended by SIGTERM\n"
    assert one.returncode == 143


def test_a_ctrl_c_is_one_line_whatever_it_met() -> None:
    """Such as an import of C code, which fails in words of its own."""
    code = "import os, signal\nfrom sia.command import run\ndef fail():\n    try: os.kill(os.getpid(), signal.SIGINT)\n"
    code += "    except KeyboardInterrupt: raise ImportError('a bad install')\nrun(fail)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_before_it_runs_a_command_ends_at_a_ctrl_c_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "jobs" / "one.py"
    script.parent.mkdir()
    script.write_text("import os, signal\nfrom sia import command\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-2, "")


def test_a_ctrl_c_ends_workers_that_do_not_hear_it() -> None:
    code = "import time\nfrom sia.command import run\nfrom sia.orphans import pool\n"
    code += "def work():\n    with pool(1) as one:\n        one.submit(time.sleep, 0).result()\n"
    code += "        print('begun', flush=True)\n        one.submit(time.sleep, 60).result()\n"
    code += "if __name__ == '__main__':\n    run(work)"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, start_new_session=True, **streams) as one:
        assert one.stdout is not None and one.stdout.readline() == "begun\n"
        os.killpg(one.pid, signal.SIGINT)  # as a terminal does
        assert one.communicate(timeout=30)[1] == "interrupted\n"
    assert one.returncode == 130
