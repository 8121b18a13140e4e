"""What a user did wrong, said in one line that names the file or key and the cure."""


class UserError(ValueError):
    """A fault outside the program: a missing folder, an unreadable file, another architecture's checkpoint."""

    exit_status = 1

    def __init__(self, said: str = "") -> None:
        # torch hands on a fault of a loader worker with the worker's whole traceback, of which it is the last line.
        super().__init__(said.strip().rpartition("\n")[2].partition(": ")[2] if said.startswith("Caught ") else said)


class UsageError(UserError):
    """A fault in what was asked for: an unknown key, a grid that matches nothing, a flag's value."""

    exit_status = 2


def one_line(text: str) -> str:
    return " ".join(text.split())[:300]
