"""The job of a pack, and who asks for it: each of its places trains a run of the study, until none waits any more.

Each run has its own ranks, lock, log, failure and signal. On Slurm a run is a step of the job (`srun --exact`), which
Slurm places; without it, a process a rank, which on CPUs is forked from one that has loaded torch.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import ClassVar

from sia import gate
from sia.cluster.pack_step import ENTRY, GPUS, PLACE, Forked, Step, preload
from sia.cluster.packs import PackFolder, Packs, Size, Ticket
from sia.cluster.profile import Cluster, Profile
from sia.cluster.snapshot import this_tree
from sia.cluster.stage_job import Place, TrainStage
from sia.cluster.submit import submit
from sia.cluster.task import JobFiles, Task
from sia.errors import UserError
from sia.run.lock import living_holder
from sia.run.queue import is_in_queue
from sia.run.records import Failed, Job, hand_on
from sia.run.state import current_stage
from sia.training.preemption import PreemptionFlag, signals_blocked

POLL_SECONDS = 0.2
LINGER_SECONDS = 20.0  # an empty pack waits so long for the next run, while its study is driven
# What Slurm set for the job's own step would be taken for the wish of the steps inside it.
OF_OWN_STEP = (
    "SLURM_CPU_BIND",
    "SLURM_CPUS_PER",
    "SLURM_MEM_",
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_STEP",
    "SLURM_TRES",
)


def ask_for_place(task: TrainStage, cluster: Cluster, profile: Profile, code: Path) -> None:
    """Leave the stage's ticket where it is not known yet, and submit another pack where those in the queue have too
    few places: of a whole node, or for as many runs as are left; a machine has one. Raises UserError where the cluster
    takes none.
    """
    packs, ticket = Packs.of_study(task.run.path.parent), f"{task.run.name}.json"
    packs.waiting.mkdir(parents=True, exist_ok=True)
    with packs.lock:
        if not packs.know(ticket) and not task.job_record.exists():
            Ticket(task=asdict(task), code=str(code)).write(packs.waiting / ticket)
        if packs.are_too_few(profile.runs_per_node) and not (cluster == "local" and any(packs.living())):
            most, folder = profile.runs_per_node, PackFolder(packs.another())
            wanted = packs.places_of_another(most) if cluster == "slurm" else most
            former = Size.read_sound(folder.size)  # of a submission that was killed, or refused
            places = min(former.places, most) if former else wanted
            gate.own_folder(folder.path)
            Size(places=places).write(folder.size)
            submit(Pack.of(folder.path, profile, places), cluster, profile.of_pack(places), code)


def wait_for_place(task: TrainStage, cluster: Cluster, profile: Profile, code: Path) -> None:
    """Ask until a pack has taken the stage, which its job.json then tells, or the run is stopped.

    Raises UserError where the cluster takes no pack.
    """
    ticket = Packs.of_study(task.run.path.parent).waiting / f"{task.run.name}.json"
    if (former := Job.read(task.job_record)) is not None and not is_in_queue(former):
        task.job_record.unlink(missing_ok=True)
    try:
        failed = task.run.stage(task.number).failed
        while not (task.job_record.exists() or task.run.stopped.exists() or failed.exists()):
            ask_for_place(task, cluster, profile, code)
            time.sleep(POLL_SECONDS)
    except UserError:
        ticket.unlink(missing_ok=True)
        raise
    if task.run.stopped.exists():
        ticket.unlink(missing_ok=True)


@dataclass(frozen=True)
class Pack(Task):
    """A job with so many places, in each of which a run trains with so many ranks, of so many CPUs each.

    folder: `packs/N/` of the study. memory: of a place, as srun takes it; "0" is all that the job has.
    gpus: of the job.
    """

    folder: str
    places: int
    ranks: int
    cpus: int
    gpus: int = 0
    memory: str = "0"
    starts_steps: ClassVar[bool] = True

    @classmethod
    def of(cls, folder: Path, profile: Profile, places: int) -> "Pack":
        one, gpus = profile.of_run(), profile.of_pack(places).gpus_per_node
        memory = f"{int(one.mem_gb * 1024)}M" if one.mem_gb else "0"
        return cls(str(folder), places, one.tasks_per_node, one.cpus_per_task, gpus, memory)

    @property
    def of_pack(self) -> PackFolder:
        return PackFolder(Path(self.folder))

    @property
    def study(self) -> Path:
        return self.of_pack.path.parents[1]

    @property
    def files(self) -> JobFiles:
        pack = self.of_pack
        return JobFiles(f"{self.study.name}/pack-{pack.path.name}", pack.path, pack.job)

    def __call__(self) -> None:
        """Called by submitit in the one process of the job."""
        flag, place = PreemptionFlag().install(), Place.of_submitit()
        self.of_pack.tickets.mkdir(exist_ok=True)
        steps: dict[int, Step] = {}
        try:
            self._work(steps, flag, place)
        finally:  # also where it fails: its end would wait for runs that are forked, whose marks nobody looked at
            for step in steps.values():
                step.tell(int(flag.received or signal.SIGTERM))
        for step in steps.values():
            while not step.is_over():
                time.sleep(POLL_SECONDS)
            if flag.received != signal.SIGUSR2:
                step.settle()
        if flag.received == signal.SIGUSR2:
            from submitit import JobEnvironment

            JobEnvironment()._requeue(0)

    def _work(self, steps: dict[int, Step], flag: PreemptionFlag, place: Place) -> None:
        """Until a signal, or until no run wants a place; steps: by their place, those that are under way."""
        if self._forks(place):
            os.environ["OMP_NUM_THREADS"] = str(self.cpus)  # read as torch is loaded
            preload()
        last_busy = time.monotonic()
        while not flag:
            for number, step in list(steps.items()):
                step.end_if_stopped()
                if step.is_over():
                    steps.pop(number).settle()
            for number in set(range(self.places)) - steps.keys():
                ticket = self._next({step.ticket for step in steps.values()})
                if ticket is not None and (begun := self._start(ticket, number, place)) is not None:
                    steps[number] = begun
            if steps:
                last_busy = time.monotonic()
            elif time.monotonic() - last_busy > LINGER_SECONDS or living_holder(self.study / "driver.lock") is None:
                break
            _rest(steps.values())

    def _next(self, under_way: set[Path]) -> Path | None:
        """A ticket that this job had before it was requeued, or else the one that has waited longest."""
        for ticket in self.of_pack.tickets.glob("*.json"):
            if ticket not in under_way:
                return ticket
        for ticket in Packs.of_study(self.study).in_turn():
            with contextlib.suppress(FileNotFoundError):  # another pack was faster
                return ticket.rename(self.of_pack.tickets / ticket.name)
        return None

    def _start(self, path: Path, number: int, place: Place) -> Step | None:
        """Begin the ticket's run in that place, which its job.json tells first; None for one that cannot begin."""
        ticket = Ticket.read_sound(path)
        if ticket is None:  # damaged: the run's driver asks for a place again
            path.unlink()
            return None
        task = ticket.stage
        try:
            self._check_and_tell(task, ticket.code, place)
        except UserError as error:  # the other runs go on
            Failed(error=str(error), job_id=place.job_id, time=time.time()).write(task.run.stage(task.number).failed)
            path.unlink()
            return None
        given = json.dumps(asdict(task)), place.job_id, place.life
        what = [sys.executable, "-u", "-c", ENTRY, ticket.code, *given]
        if place.cluster == "slurm":
            return Step(task, path, [self._srun(task, what, number, place)])
        forked = self._forks(place) and Path(ticket.code).resolve() == this_tree()
        ranks = [
            (f"{task.jobs}/{place.job_id}_{rank}_log", self._variables(number, rank)) for rank in range(self.ranks)
        ]
        return Step(task, path, [_forked(*rank, given) if forked else _started(*rank, what) for rank in ranks])

    def _forks(self, place: Place) -> bool:
        """Whether runs are forked from this process, which has loaded torch once; CUDA does not allow it."""
        return place.cluster == "local" and not self.gpus

    def _check_and_tell(self, task: TrainStage, code: str, place: Place) -> None:
        """Write down this job as that of the run's stage. Raises UserError for a run, or code, that was changed."""
        if fault := gate.fault_of_code(Path(code), self.study.name):
            raise UserError(fault)
        stage = task.run.stage(current_stage(task.run))
        hand_on(self.job_record, stage.job, place.job_id, code=code, shared=True)
        gate.own_folder(task.jobs)

    def _srun(self, task: TrainStage, what: list[str], number: int, place: Place) -> "subprocess.Popen[bytes]":
        log = task.jobs / f"{place.job_id}_%t_log"
        command = ["srun", "--exact", "--nodes=1", f"--ntasks={self.ranks}", f"--cpus-per-task={self.cpus}"]
        command += [f"--mem={self.memory}", f"--job-name={task.name}", "--kill-on-bad-exit=1", "--open-mode=append"]
        command += [f"--output={log}.out", f"--error={log}.err"]
        if self.gpus >= self.places:
            command.append(f"--gpus-per-node={self.gpus // self.places}")
        elif self.gpus:  # several runs share one
            command += ["--overlap", f"--gpus-per-node={self.gpus}"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(OF_OWN_STEP)}
        environment["OMP_NUM_THREADS"] = str(self.cpus)
        shared = {GPUS: str(number % self.gpus)} if 0 < self.gpus < self.places else {}
        return subprocess.Popen([*command, *what], env=environment | shared, stdin=subprocess.DEVNULL)

    def _variables(self, number: int, rank: int) -> dict[str, str]:
        """Those of a rank of the run in place `number` of this machine."""
        seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
        each = max(1, len(seen) // self.places)
        own = [seen[(number * each + one) % len(seen)] for one in range(each)] if seen else []
        place_of_rank = {PLACE: f"{rank} {rank} {self.ranks}", "OMP_NUM_THREADS": str(self.cpus)}
        return place_of_rank | ({GPUS: ",".join(own)} if own else {})


def _rest(steps: Iterable[Step]) -> None:
    """No longer than until one of the forked ranks ends; who has ended before another of its run tells nothing new."""
    forked = [one for step in steps for one in step.processes if isinstance(one, Forked)]
    wait([one.sentinel for one in forked if one.poll() is None], POLL_SECONDS)


def _started(log: str, variables: dict[str, str], what: list[str]) -> "subprocess.Popen[bytes]":
    with open(f"{log}.out", "ab") as out, open(f"{log}.err", "ab") as err:
        return subprocess.Popen(what, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=out, stderr=err)


def _forked(log: str, variables: dict[str, str], given: tuple[str, ...]) -> Forked:
    process = Forked(log, variables, *given)
    with signals_blocked():
        process.start()
    return process
