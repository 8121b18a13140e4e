"""What a check is made of: questions to other programs and of file systems, and a finding with its cure."""

import functools
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, ParamSpec

from sia.errors import one_line

Given = ParamSpec("Given")
NETWORK_FILE_SYSTEMS = (
    *("nfs", "nfs4", "lustre", "beegfs", "gpfs", "cifs", "smbfs", "smb3", "ceph", "glusterfs", "afs", "9p"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs", "fuse.weka", "wekafs", "panfs", "orangefs"),
)


@dataclass(frozen=True)
class Finding:
    """A warning may be lived with, a problem stops a study; both name a cure."""

    level: Literal["ok", "warning", "problem"]
    said: str
    cure: str = ""
    check: str = ""


def ok(said: str) -> Finding:
    return Finding("ok", said)


def warning(said: str, cure: str) -> Finding:
    return Finding("warning", said, cure)


def problem(said: str, cure: str) -> Finding:
    return Finding("problem", said, cure)


def check(name: str) -> Callable[[Callable[Given, Finding]], Callable[Given, Finding]]:
    """Give a function's finding this name; an exception that it did not expect becomes a warning."""

    def decorate(function: Callable[Given, Finding]) -> Callable[Given, Finding]:
        @functools.wraps(function)
        def safe(*given: Given.args, **named: Given.kwargs) -> Finding:
            try:
                found = function(*given, **named)
            except Exception as error:
                reason = f"{type(error).__name__}: {one_line(str(error))}"
                found = warning(f"could not be checked: {reason}", "look into it by hand; nothing else depends on it")
            return replace(found, check=name)

        return safe

    return decorate


@dataclass(frozen=True)
class Answer:
    """`status` is None where the program is missing or did not end in time; `reason` says what went wrong."""

    status: int | None
    output: str
    errors: str

    @property
    def good(self) -> bool:
        return self.status == 0

    @property
    def reason(self) -> str:
        """The last line of its errors, or what else is known."""
        lines = self.errors.strip().splitlines() or self.output.strip().splitlines()
        return one_line(lines[-1]) if lines else f"exit status {self.status}"


def ask(command: list[str], timeout_s: float, text: str = "", environment: dict[str, str] | None = None) -> Answer:
    """Run the command with `text` on its stdin. One that hangs, in a driver perhaps, is killed and not waited for."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(text)
        given.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=given, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        except OSError as error:
            return Answer(None, "", f"{command[0]}: {error.strerror}")
        status, late = None, ""
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            late = f"no answer within {timeout_s:g} s"
        for stream in (out, err):
            stream.seek(0)
        return Answer(status, out.read(), late or err.read())


def file_system_of(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that an absolute path lies on, None if no mount tells.

    `mounts` is the text of /proc/mounts.
    """
    if mounts is None:
        proc = Path("/proc/mounts")
        mounts = proc.read_text() if proc.exists() else ""
    found, longest = None, -1
    for line in mounts.splitlines():
        _, mount, file_system, *_ = line.split(" ")
        mount_point = Path(mount.replace("\\040", " "))
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= longest:
            found, longest = file_system, len(mount_point.parts)
    return found


def existing(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    return next(one for one in (path, *path.parents) if one.exists())
