"""The script that sbatch is given for a profile, without a cluster: what --dry-run shows. It loads no torch."""

from pathlib import Path

from sia.cluster.profile import Profile


def sbatch_script(profile: Profile, job_name: str, folder: Path) -> str:
    """submitit's script for a job whose pickle and logs lie in `folder`. Raises UsageError for a flag it refuses."""
    from submitit.slurm.slurm import _make_sbatch_string

    # The interpreter and the folder of the real command follow when the job is submitted.
    command = f"python -u -m submitit.core._submit {folder}"
    return _make_sbatch_string(command=command, folder=folder, **profile.slurm_parameters(job_name))
