"""Where the jobs of a sweep run, from the flags of a command."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sia.atomic import read_json, write_json
from sia.cluster.profile import Cluster, Profile, check_local, choose_cluster, load_profile, visible_gpus
from sia.cluster.snapshot import snapshot
from sia.config import validate
from sia.run import records
from sia.run.folder import RunFolder

SLURM_AT_ONCE = 16  # each trial costs the driver about 116 MB


@dataclass(frozen=True)
class Launch:
    """A cluster, the resources of each job on it, and the folder of the code that jobs run."""

    cluster: Cluster
    profile: Profile

    @cached_property
    def code(self) -> Path:
        """The code as it is when it is first asked for: one for all jobs of a sweep."""
        return snapshot()


def choose_launch(
    wanted: str, profile: Path | None, of_grid: Path | None, for_show: bool = False, runs: int = 1
) -> Launch:
    """`--cluster`, then `--profile`, else on Slurm the grid's own, else what this machine has for so many runs.

    for_show: nothing is submitted now, so that a Slurm need not answer. Raises UserError for a Slurm that does not,
    UsageError for a profile that does not fit.
    """
    cluster: Cluster = "slurm" if for_show and wanted == "slurm" else choose_cluster(wanted)
    if profile is None and cluster == "slurm":
        profile = of_grid
    if profile is None:
        return Launch(cluster, local_profile(runs) if cluster == "local" else Profile())
    chosen = load_profile(profile)
    if cluster == "local":
        check_local(chosen, str(profile))
    return Launch(cluster, chosen)


def choose_launches(
    of_grid: Mapping[str, Path | None],
    wanted: str,
    profile: Path | None,
    for_show: bool = False,
    max_concurrent: int | None = None,
) -> dict[str, Launch]:
    """Where each run goes, by its name, given the profile that its grid names; runs of one profile share a Launch."""
    # Of the whole grid, not of what is left of it: a run that goes on has as many ranks as before.
    runs = min(len(of_grid), max_concurrent or len(of_grid))
    of_profile = {
        named: choose_launch(wanted, profile, named, for_show, runs) for named in dict.fromkeys(of_grid.values())
    }
    return {run: of_profile[named] for run, named in of_grid.items()}


def local_profile(runs: int = 1) -> Profile:
    """A rank a GPU; without one, two ranks that share the cores. Where there are as many runs as ranks, each trains
    one of them, side by side: nobody then waits for another rank.
    """
    gpus, cores = len(visible_gpus()), os.cpu_count() or 1
    ranks = gpus or min(2, cores)
    return Profile(
        tasks_per_node=ranks,
        gpus_per_node=gpus,
        cpus_per_task=max(1, cores // ranks),
        runs_per_node=ranks if runs >= ranks else 1,
        # submitit's local jobs have a time limit too; a machine of one's own has no queue to be fair to.
        timeout_min=60 * 24 * 365,
    )


def record_launch(run: RunFolder, launch: Launch, refused: str = "") -> None:
    """For `former_launch`; refused: why the cluster did not take it."""
    if launch.profile.environment:
        write_json(run.launch_environment, launch.profile.environment, mode=0o600)
    else:
        run.launch_environment.unlink(missing_ok=True)
    records.Launch(cluster=launch.cluster, profile=launch.profile.for_records(), refused=refused).write(run.launch)


def former_launch(run: RunFolder, wanted: str, profile: Path | None) -> Launch:
    """How a run goes on: as its last job was asked for, unless a flag says otherwise."""
    former = records.Launch.read(run.launch)
    launch = choose_launch(wanted, profile, None)
    if profile is None and former is not None and former.cluster == launch.cluster:
        environment = read_json(run.launch_environment) or {}
        return Launch(launch.cluster, validate(Profile, {"environment": environment, **former.profile}, str(run.path)))
    return launch


def default_concurrency(launch: Launch) -> int:
    """A cluster has a queue. A machine's ranks use all of it; where runs share it, one more waits for a place."""
    together = launch.profile.runs_per_node
    return SLURM_AT_ONCE if launch.cluster == "slurm" else together + (together > 1)
