"""What Slurm says, in its own words: why it takes no job, which of it passes by itself, and, where the cluster keeps
accounts, how a job that has left the queue ended. It loads no torch.
"""

import contextlib
import pwd
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from sia.checks import ask

ANSWER_SECONDS = 5.0
ASK_AGAIN_SECONDS = 60.0
SILENT_SECONDS = 300.0  # for so long it is not asked again after it gave no answer
UNDER_WAY = ("RUNNING", "PENDING", "REQUEUED", "SUSPENDED", "COMPLETING", "RESIZING")
CURES = {
    **dict.fromkeys(("TIMEOUT", "DEADLINE"), "raise timeout_min of its profile"),
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL", "PREEMPTED"), "no fault of the run"),
    "OUT_OF_MEMORY": "raise mem_gb of its profile",
}
IS_AWAY = (
    *("Unable to contact slurm controller", "Socket timed out", "backup controller in standby"),
    *("Munge encode failed", "Protocol authentication error"),
    "no answer within",  # the words of `ask`
)
QUEUE_IS_FULL = (
    "SubmitJob",  # AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit and their like
    "Resource temporarily unavailable",  # the cluster's own MaxJobCount
)


def cluster_is_away(said: str) -> bool:
    """Whether there is a Slurm, which does not answer now."""
    return any(text in said for text in IS_AWAY)


def passes(said: str) -> bool:
    """Whether the same job may be taken later: the cluster is away, or as many jobs wait as the user may have."""
    return cluster_is_away(said) or any(text in said for text in QUEUE_IS_FULL)


def in_one_line(log: str) -> str:
    """What sbatch said, or the last line where it said nothing: the line before the last often tells the limit."""
    lines = [line.strip() for line in log.strip().splitlines()]
    # Its first line follows the name of an exception.
    said = [found[1] for line in lines if (found := re.search(r"(?:^|: )sbatch: (?:error: )?(.+)", line))]
    return "; ".join(dict.fromkeys(said)) or (lines[-1] if lines else "it said nothing")


@dataclass
class Accounting:
    """What sacct says of jobs that ended, kept for the life of this process; without an answer it is asked rarely."""

    silent_until: float = 0.0
    known: dict[str, str] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)

    def why(self, job_ids: Iterable[str]) -> dict[str, str]:
        """How each job ended, such as `TIMEOUT (raise timeout_min of its profile)`; jobs nobody knows are left out.

        All that are not known yet are asked for in one call, which is given up after 5 s.
        """
        wanted, now = list(job_ids), time.monotonic()
        new = [one for one in wanted if one not in self.known and now - self.asked.get(one, -1e9) > ASK_AGAIN_SECONDS]
        if new and now >= self.silent_until:
            command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode"]
            answer = ask([*command, "--jobs", ",".join(new)], ANSWER_SECONDS)
            if answer.good:
                self.asked.update(dict.fromkeys(new, now))
                self.known.update(_endings(answer.output, set(new)))
            else:
                self.silent_until = time.monotonic() + SILENT_SECONDS
        return {one: self.known[one] for one in wanted if one in self.known}


ACCOUNTING = Accounting()


def _endings(listed: str, wanted: set[str]) -> dict[str, str]:
    lines = [line.split("|") for line in listed.splitlines() if line.count("|") == 2]
    return {
        job_id: _in_words(state, exit_code)
        for job_id, state, exit_code in lines
        if job_id in wanted and state and not state.startswith(UNDER_WAY)
    }


def _in_words(state: str, exit_code: str) -> str:
    """`CANCELLED by 1000` with the user's name, `FAILED` with the exit code, others with the cure that is known."""
    if state.startswith("CANCELLED by "):
        user = state.removeprefix("CANCELLED by ")
        with contextlib.suppress(KeyError, ValueError):
            user = pwd.getpwuid(int(user)).pw_name
        return f"CANCELLED by {user}"
    if state == "FAILED":
        return f"FAILED, exit code {exit_code}"
    return f"{state} ({CURES[state]})" if state in CURES else state
