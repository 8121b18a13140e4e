"""A sweep whose driver is itself a job: `jobs/submit.py --detach`."""

from pathlib import Path
from typing import Any

import yaml

from sia.atomic import write_text
from sia.cluster.driver_job import DriveStudy, driver_profile
from sia.cluster.launch import Launch
from sia.cluster.submit import submit
from sia.config import read_yaml
from sia.errors import UsageError, UserError
from sia.gate import own_folder
from sia.run.driver import driver_of, refuse_if_driven
from sia.run.folder import runs_root
from sia.run.lock import HeartbeatLock, LockHeld
from sia.sweep.grid import Grid, profile_path
from sia.trackers.tracker import tracker_environment


def detach(grid: Grid, path: Path, launch: Launch, arguments: list[str], dependency: str | None) -> str:
    """Submit the driver of a grid file as a job of its own; the job's number.

    arguments: those of jobs/submit.py besides --grid, which is given a copy of the file as it is now.
    Raises UsageError without a Slurm, UserError where the study is driven already.
    """
    if launch.cluster != "slurm":
        raise UsageError("--detach needs Slurm, where the driver becomes a job; on one machine start it in tmux")
    folder = runs_root() / grid.study
    own_folder(folder / "driver")
    try:
        with HeartbeatLock(folder / "driver" / "detach.lock"):
            return _submit_driver(grid, path, launch, arguments, dependency)
    except LockHeld as error:
        raise UserError(f"study {grid.study} is being detached already ({error})") from None


def _submit_driver(grid: Grid, path: Path, launch: Launch, arguments: list[str], dependency: str | None) -> str:
    refuse_if_driven(grid.study)
    folder = runs_root() / grid.study
    frozen = folder / "driver" / "grid.yaml"
    write_text(frozen, yaml.safe_dump(_frozen(read_yaml(path), path.absolute(), grid.study), sort_keys=False))
    task = DriveStudy(str(folder), ["--grid", str(frozen), *arguments])
    profile = driver_profile(launch.profile, dependency)
    told = profile.model_copy(update={"environment": {**tracker_environment(grid.study), **profile.environment}})
    submit(task, "slurm", told, launch.code)
    job = driver_of(grid.study)
    return job.job_id if job is not None else ""


def _frozen(values: dict[str, Any], path: Path, study: str) -> dict[str, Any]:
    """The grid's values with the study's name in them and absolute profiles, so that the file may lie anywhere."""
    named = {**_absolute(values, path), "study": study}
    if isinstance(small := values.get("miniature"), dict):
        named["miniature"] = {**_absolute(small, path), "study": study}
    return named


def _absolute(values: dict[str, Any], path: Path) -> dict[str, Any]:
    def placed(holder: dict[str, Any]) -> dict[str, Any]:
        if not holder.get("profile"):
            return holder
        try:
            return {**holder, "profile": str(profile_path(path, holder["profile"]))}
        except UsageError:  # of a part that is not used: load_grid has found all that are
            return holder

    where = [placed(one) for one in values.get("where", [])]
    return {**placed(values), **({"where": where} if where else {})}
