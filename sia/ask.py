"""Questions to other programs, which may be missing, fail, or never answer."""

import subprocess
import tempfile
from dataclasses import dataclass

from sia.finding import one_line


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
