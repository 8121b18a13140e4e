"""What a submission would begin, and what it would be refused for; the same for a dry run and before a submission.

It loads no torch.
"""

import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console
from rich.text import Text

from sia import gate
from sia.checks import existing
from sia.cluster.launch import Launch
from sia.cluster.packs import Packs
from sia.cluster.profile import Profile, no_answer, sbatch_script, slurm_trouble
from sia.cluster.slurm_says import passes
from sia.doctor.slurm import Slurm, submission
from sia.errors import UserError
from sia.rehearsal.cost_table import rehearsed_table, total_hours
from sia.run.cost import checkpoint_gb
from sia.run.driver import another_driver
from sia.run.folder import runs_root
from sia.run.records import Request
from sia.run.state import current_stage
from sia.sweep.corpora import check_fit, check_is_there, check_settings, is_to_be_made
from sia.sweep.detach import check_detach, driver_profile, driving_task
from sia.sweep.grid import Grid, GridPoint
from sia.sweep.plan_table import BEGIN, action, count_of, plan_table
from sia.trackers.tracker import tracker_of

MOST_JOBS = 200  # that are begun without a question


@dataclass(frozen=True)
class Preflight:
    """A submission that has not been made."""

    request: Request
    grid: Grid
    launches: dict[str, Launch]  # of each run, by its name
    dependency: str | None = None  # of a driver that is a job

    @cached_property
    def actions(self) -> list[str]:
        """What would be done with each point."""
        return [action(point, self.request.scheduler == "asha") for point in self.grid.points]

    @property
    def to_begin(self) -> list[GridPoint]:
        return [point for point, done in zip(self.grid.points, self.actions, strict=True) if done == BEGIN]

    def by_launch(self, points: list[GridPoint]) -> list[tuple[Launch, list[GridPoint]]]:
        """The points that go where, in the order of the grid."""
        groups: dict[int, tuple[Launch, list[GridPoint]]] = {}
        for point in points:
            launch = self.launches[point.run.name]
            groups.setdefault(id(launch), (launch, []))[1].append(point)
        return list(groups.values())

    def num_jobs(self) -> int:
        """How many would be begun, one after the other or at once; none is lost."""
        return sum(_num_jobs(launch, points) for launch, points in self.by_launch(self.to_begin))

    def faults(self) -> list[UserError]:
        """All that it would be refused for, as far as can be told before a corpus is made that is not there yet."""
        return list({str(fault): fault for fault in self._faults()}.values())

    def _faults(self) -> Iterator[UserError]:
        place = existing(runs_root() / self.grid.study)
        if not os.access(place, os.W_OK):
            yield UserError(f"{place}: you may not write there; name another folder by the variable SIA_RUNS")
        if fault := gate.open_between(runs_root(), runs_root() / self.grid.study):
            yield UserError(fault)
        yield from _faults_of(tracker_of, self.grid.study)
        small = f"python jobs/submit.py --grid {self.request.grid} --miniature" if self.grid.has_miniature else ""
        first = next(iter(self.launches.values()))
        yield from _faults_of(check_detach, first) if self.request.detach else ()
        for point in self.grid.points:
            experiment, launch = point.experiment, self.launches[point.run.name]
            if found := [*_faults_of(check_settings, experiment, launch)]:
                yield from found
            elif not is_to_be_made(experiment.data):
                missing = [*_faults_of(check_is_there, experiment.data, small)]
                yield from missing or _faults_of(check_fit, point.run, experiment, launch)

    def show(self, console: Console) -> int:
        """Print what would be done, each script that Slurm would be given with what it says of it, what it takes, and
        all that it would be refused for; the exit status that it would then end with.
        """
        profiles = [self.launches[point.run.name].profile for point in self.grid.points]
        for line in self.grid.told:
            console.print(Text(line), soft_wrap=True)
        console.print(plan_table(self.grid.study, self.grid.points, profiles, self.actions))
        if (costs := rehearsed_table(self.grid, self.launches)) is not None:
            console.print(costs)
        trouble = slurm_trouble() if (scripts := list(self.scripts())) else None
        faults = [no_answer("slurm", trouble)] if trouble else []
        for script in scripts:
            print(f"{script.what}:\n\n{script.text}")
            faults += [] if trouble or not self.to_begin else script.asked_about()
        print("\n".join(self.told()), flush=True)
        for fault in (faults := [*faults, *self.faults()]):
            print(f"error: {fault}", file=sys.stderr)
        return faults[0].exit_status if faults else 0

    def scripts(self) -> Iterator["Script"]:
        """One of each kind of job that Slurm would be given."""
        for launch, points in self.by_launch(self.grid.points):
            if launch.cluster == "slurm":
                source = self.request.profile or str(points[0].profile or "the cluster's defaults")
                yield _script_of_runs(launch.profile, points, source)
        first = next(iter(self.launches.values()))
        if self.request.detach and first.cluster == "slurm":
            profile, driver = driver_profile(first.profile, self.dependency), driving_task(self.grid.study)
            text = sbatch_script(profile, driver.name, driver.jobs)
            yield Script("sbatch script of the driver", text, profile, self.request.profile or "the study's profile")

    def told(self) -> Iterator[str]:
        """What is made first, who drives the study, how much would be begun."""
        if self.request.cluster != "debug" and (driver := another_driver(self.grid.study)) is not None:
            yield f"study {self.grid.study} is driven by {driver.who}, which would be watched; no job would begin"
            return
        points, begun = self.grid.points, self.to_begin
        made = {str(point.experiment.data.path): None for point in points if is_to_be_made(point.experiment.data)}
        yield from (f"{folder} would be made first, in about a minute" for folder in made)
        if not begun:
            yield "nothing would begin"
        else:
            asked = ", after a question (or --yes)" if (count := self.num_jobs()) > MOST_JOBS else ""
            yield f"{count_of_jobs(count)} would begin, for {count_of(begun)}{asked}"
            yield f"time: {total_hours(begun, self.launches)}"
            room = sum(checkpoint_gb(point.experiment) for point in begun)
            free = shutil.disk_usage(existing(runs_root())).free / 1e9
            yield f"checkpoints: {room:,.2f} GB at most; {free:,.0f} GB are free"


@dataclass(frozen=True)
class Script:
    what: str
    text: str
    profile: Profile
    source: str  # of the profile

    def asked_about(self) -> list[UserError]:
        """Print when Slurm would start it; why it would not be taken."""
        found = submission(Slurm(True, True), self.profile, self.source, self.text)
        if found.level == "problem" and not passes(found.said):
            return [UserError(f"{found.said}; {found.cure}")]
        print(f"Slurm: {found.said}\n")
        return []


def _faults_of(check: Callable[..., object], *given: object) -> Iterator[UserError]:
    try:
        check(*given)
    except UserError as error:
        yield error


def _script_of_runs(profile: Profile, points: list[GridPoint], source: str) -> Script:
    runs = [point.run for point in points]
    study, names = runs[0].path.parent, ", ".join(run.name for run in runs)
    if (together := profile.runs_per_node) > 1:
        folder, places = Packs.of_study(study).another(), min(together, len(points))
        of_pack = profile.of_pack(places)
        text = sbatch_script(of_pack, f"{study.name}/pack-{folder.name}", folder, overlap=True)
        return Script(f"sbatch script of each job that {places} of {names} share", text, of_pack, source)
    text = sbatch_script(profile, f"{study.name}/{runs[0].name}/1", runs[0].jobs)
    return Script(f"sbatch script of each stage of {names} (the first one's)", text, profile, source)


def count_of_jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _num_jobs(launch: Launch, points: list[GridPoint]) -> int:
    profile = launch.profile
    if profile.runs_per_node > 1 and launch.cluster != "debug":
        return math.ceil(len(points) / profile.runs_per_node) if launch.cluster == "slurm" else 1
    if profile.chain_stages:
        return len(points)
    begun = [current_stage(point.run) if point.run.config.exists() else 1 for point in points]
    return sum(len(point.experiment.stages) + 1 - stage for point, stage in zip(points, begun, strict=True))
