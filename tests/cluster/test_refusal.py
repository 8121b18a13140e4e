"""Which refusals of sbatch pass by themselves, on what Slurm 22.05 printed."""

import pytest

from sia.cluster.refusal import cluster_is_away, in_one_line, passes

FULL = """\
sbatch: error: AssocMaxSubmitJobLimit
sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or \
time limits)
"""
MUNGE = """\
sbatch: error: If munged is up, restart with --num-threads=10
sbatch: error: Munge encode failed: Failed to access "munge.socket": No such file or directory (Did you start munged?)
sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error
sbatch: error: Batch job submission failed: Protocol authentication error
"""
CONTROLLER = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
ACCOUNT = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
TOO_LONG = """\
sbatch: error: AssocMaxWallDurationPerJobLimit
sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or \
time limits)
"""


@pytest.mark.parametrize(("said", "later"), [(FULL, True), (MUNGE, True), (CONTROLLER, True), (ACCOUNT, False)])
def test_which_refusals_pass(said, later):
    assert passes(said) is later


def test_a_job_that_is_too_large_for_its_user_never_fits():
    assert not passes(TOO_LONG)


def test_a_full_queue_is_a_slurm_that_answers():
    assert cluster_is_away(MUNGE) and cluster_is_away(CONTROLLER) and not cluster_is_away(FULL)


def test_a_flag_that_sbatch_does_not_know_is_told():
    said = "FailedJobError: sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\" for more information\n"
    assert in_one_line(f"Traceback\n  x\nsubmitit.core.utils.{said}") == "unrecognized option '--foo=1'"


def test_all_that_sbatch_said_is_told_once():
    assert in_one_line(FULL + FULL).startswith("AssocMaxSubmitJobLimit; Batch job submission failed: Job violates")
    assert in_one_line(f"Traceback\n  x\nFileNotFoundError: sbatch\n{''}") == "FileNotFoundError: sbatch"
    assert in_one_line("") == "it said nothing"
