"""Submit a task to a cluster, which runs the code of a snapshot.

A process of its own does it, for three reasons: a job it starts survives the end of whoever asked and a Ctrl-C there;
nothing of a Ray worker's environment leaks into the job; and job.json is written even if the driver dies meanwhile.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sia.atomic import read_json
from sia.cluster import bootstrap
from sia.cluster.cancel import cancel_jobs
from sia.cluster.environment import clean_environment
from sia.cluster.job import TrainStage
from sia.cluster.profile import Cluster, Profile, visible_gpus
from sia.cluster.refusal import in_one_line
from sia.cluster.rehearsal import Rehearse
from sia.cluster.snapshot import snapshot
from sia.cluster.tasks import TASKS, Task
from sia.errors import UserError
from sia.run_folder import own_folder, record

if TYPE_CHECKING:
    from submitit import LocalExecutor, SlurmExecutor


# Not `-m`: that would import the code of the working folder.
ENTRY = "import sys; sys.path.insert(0, sys.argv[1]); from sia.cluster.submit import main; main(*sys.argv[1:])"


def submit(task: Task, cluster: Cluster, profile: Profile, code: Path | None = None) -> None:
    """Hand the task to the cluster, to be carried out by the code in the folder `code` (default: a snapshot of it now).

    Its job record is there when this returns. Raises UserError with what the cluster said.
    """
    submit_all([task], cluster, profile, code)


def submit_all(tasks: Sequence[Task], cluster: Cluster, profile: Profile, code: Path | None = None) -> None:
    """The same for several tasks; on Slurm they become one job array."""
    described = [{"kind": type(task).__name__, "fields": asdict(task)} for task in tasks]
    for task in tasks:
        own_folder(task.jobs)
    log = tasks[0].jobs / "submit.log"
    with open(log, "w") as stream:
        status = subprocess.run(
            [sys.executable, "-c", ENTRY, str(code or snapshot()), cluster, profile.model_dump_json()],
            env=clean_environment(dict(os.environ), profile, cluster),
            cwd=os.environ.get("SIA_WORKING_FOLDER"),
            input=json.dumps(described),
            text=True,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        ).returncode
    if status:
        said = in_one_line(log.read_text(errors="replace"))
        raise UserError(f"the {cluster} cluster did not take {tasks[0].name}: {said} (see {log})")


def main(code: str, cluster: Cluster, profile_json: str) -> None:
    """The submitting process: tasks are read from its standard input."""
    _leave_parent()
    import cloudpickle

    described = json.load(sys.stdin)
    tasks = [TASKS[one["kind"]](**one["fields"]) for one in described]
    profile = Profile.model_validate_json(profile_json)
    cloudpickle.register_pickle_by_value(bootstrap)
    executor = _executor(tasks[0], cluster, profile)
    with executor.batch() if len(tasks) > 1 else nullcontext():
        jobs = [executor.submit(bootstrap.Bootstrap(code, **one)) for one in described]
    for task, job in zip(tasks, jobs, strict=True):
        record(
            task.job_record,
            cluster=cluster,
            job_id=str(job.job_id),
            name=tasks[0].name,  # what the cluster calls it
            host=socket.gethostname(),
            folder=str(tasks[0].jobs),  # where an array's logs lie
            code=code,
            user=os.getuid(),
            time=time.time(),
            profile=profile.model_dump(mode="json"),
        )
        if isinstance(task, TrainStage | Rehearse) and task.stopped.exists():
            # Cancelled while the cluster took it: whoever cancelled knew of no job.
            print(*cancel_jobs([read_json(task.job_record) or {}]).values(), sep="\n")


def _leave_parent() -> None:
    """Go on in a process that is nobody's child but this one's, which waits for it: Ray ends its workers' children."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.setsid()


def _executor(task: Task, cluster: Cluster, profile: Profile) -> "LocalExecutor | SlurmExecutor":
    from submitit import LocalExecutor, SlurmExecutor

    if cluster == "slurm":
        slurm = SlurmExecutor(task.jobs, max_num_timeout=1000)
        slurm.update_parameters(**profile.slurm_parameters(task.name))
        return slurm
    local = LocalExecutor(task.jobs, max_num_timeout=1000)
    local.update_parameters(
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        visible_gpus=visible_gpus()[: profile.gpus_per_node],
        timeout_min=profile.timeout_min,
        setup=profile.setup or (),
    )
    return local
