"""The environment of a job: the user's own, without what belongs to the process that submits it."""

from sia.cluster.profile import Cluster, Profile

# Set by Ray, by a Slurm job or srun that the driver may run in, by torch's launchers, or by a detached driver's job.
FOREIGN_PREFIXES = (
    "RAY_",
    "TUNE_",
    "SLURM_",
    "SBATCH_",
    "SRUN_",
    "SUBMITIT_",
    "PMI_",
    "PMIX_",
    "MASTER_",
    "TORCHELASTIC_",
    "SIA_DRIVER_",
)
# A rank's place in another job, and threads that would go before OMP_NUM_THREADS.
FOREIGN = {
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
}
# On Slurm those of the node, which Slurm sets; on one machine the user's choice.
DEVICES = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
OURS = {"SLURM_CONF"}


def clean_environment(environment: dict[str, str], profile: Profile, cluster: Cluster = "local") -> dict[str, str]:
    """The variables of `environment` that a job keeps, its number of threads, and those of the profile."""
    foreign = FOREIGN | (DEVICES if cluster == "slurm" else set())
    kept = {
        name: value
        for name, value in environment.items()
        if name in OURS or not (name in foreign or name.startswith(FOREIGN_PREFIXES))
    }
    return {**kept, "OMP_NUM_THREADS": str(profile.cpus_per_task), **profile.environment}
