"""The environment of a job: the user's own, without what belongs to the process that submits it."""

from sia.cluster.profile import Profile

# Set by Ray, by a Slurm job or srun that the driver may run in, by torch's launchers, or by a detached driver's job.
FOREIGN = (
    "RAY_",
    "TUNE_",
    "SLURM_",
    "SBATCH_",
    "SRUN_",
    "SUBMITIT_",
    "PMI_",
    "PMIX_",
    "OMP_NUM_THREADS",
    "MASTER_",
    "SIA_DRIVER_",
)
OURS = ("SLURM_CONF",)


def clean_environment(environment: dict[str, str], profile: Profile) -> dict[str, str]:
    """The variables of `environment` that a job keeps, its number of threads, and those of the profile."""
    kept = {name: value for name, value in environment.items() if name in OURS or not name.startswith(FOREIGN)}
    return {**kept, "OMP_NUM_THREADS": str(profile.cpus_per_task), **profile.environment}
