"""Which refusals of sbatch pass by themselves, on what Slurm 22.05 printed."""

import pytest

from sia.cluster.slurm_says import cluster_is_away, in_one_line, passes

FAILED = "sbatch: error: Batch job submission failed: "
POLICY = f"{FAILED}Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n"
FULL = f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}"
MUNGE = f"""\
sbatch: error: If munged is up, restart with --num-threads=10
sbatch: error: Munge encode failed: Failed to access "munge.socket": No such file or directory (Did you start munged?)
sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error
{FAILED}Protocol authentication error
"""


@pytest.mark.parametrize(
    ("said", "later", "away"),
    [
        (FULL, True, False),
        (MUNGE, True, True),
        (f"{FAILED}Unable to contact slurm controller (connect failure)", True, True),
        (f"{FAILED}Invalid account or account/partition combination specified", False, False),
        (f"sbatch: error: AssocMaxWallDurationPerJobLimit\n{POLICY}", False, False),
    ],
    ids=["full", "munge", "controller", "account", "too long"],
)
def test_which_refusals_pass_and_which_are_of_a_cluster_that_is_away(said: str, later: bool, away: bool) -> None:
    assert (passes(said), cluster_is_away(said)) == (later, away)


def test_all_that_sbatch_said_is_told_once() -> None:
    said = "FailedJobError: sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more information\n"
    assert in_one_line(f"Traceback\n  x\nsubmitit.core.utils.{said}") == "unrecognized option '--foo=1'"
    assert in_one_line(FULL + FULL).startswith("AssocMaxSubmitJobLimit; Batch job submission failed: Job violates")
    assert in_one_line("Traceback\n  x\nFileNotFoundError: sbatch\n") == "FileNotFoundError: sbatch"
    assert in_one_line("") == "it said nothing"
