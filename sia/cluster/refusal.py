"""What Slurm's commands say when they take no job, and which of it passes by itself. It loads no torch."""

import re

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
