"""Submit a task to a cluster, which runs the code of a snapshot.

A process of its own does it, for three reasons: a job it starts survives the end of whoever asked and a Ctrl-C there;
nothing of a Ray worker's environment leaks into the job; and job.json is written even if the driver dies meanwhile.
"""

import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from sia import gate
from sia.atomic import write_atomically
from sia.checks import ask
from sia.cluster import task as of_task
from sia.cluster.end_jobs import cancel_jobs, processes
from sia.cluster.profile import Cluster, Profile, clean_environment, visible_gpus
from sia.cluster.slurm_says import in_one_line
from sia.cluster.snapshot import check_snapshot, snapshot
from sia.cluster.task import Bootstrap, Task, bootstrap_of
from sia.errors import UserError
from sia.run.folder import runs_root
from sia.run.lock import HeartbeatLock, LockHeld
from sia.run.queue import is_in_queue
from sia.run.records import Job, Submission, begun_of

if TYPE_CHECKING:
    from submitit import LocalExecutor, SlurmExecutor


# Not `-m`: that would import the code of the working folder.
ENTRY = "import sys; sys.path.insert(0, sys.argv[1]); from sia.cluster.submit import main; main(*sys.argv[1:])"
KILLED = 128  # an exit status above it, as a shell has it: a signal ended the process
MOST_DEATHS = 3
MOST_TIMEOUTS = 1000
TOKEN = "SIA_SUBMISSION"  # of each submission, in its job's script and in the environment of the process that submits
ANSWER_SECONDS = 30.0
POLL_SECONDS = 0.5


def submit(task: Task, cluster: Cluster, profile: Profile, code: Path | None = None) -> None:
    """Hand the task to the cluster, to be carried out by the code in the folder `code` (default: a snapshot of it now).

    Its job record is there when this returns. Raises UserError with what the cluster said.
    """
    submit_all([task], cluster, profile, code)


def submit_all(tasks: Sequence[Task], cluster: Cluster, profile: Profile, code: Path | None = None) -> None:
    """The same for several tasks; on Slurm they become one job array."""
    code = code or snapshot()
    top = _closed_folders(tasks)
    check_snapshot(code, gate.study_in(top, tasks[0].jobs.absolute()))
    # Not an argument, which everybody on this host can read: a profile's variables may be keys.
    given = {"profile": profile.model_dump(mode="json"), "tasks": [asdict(bootstrap_of(task)) for task in tasks]}
    log = tasks[0].jobs / "submit.log"
    command = [sys.executable, "-c", ENTRY, str(code), str(top), cluster]
    environment = clean_environment(dict(os.environ), profile, cluster)
    # What a profile's `setup` prints is in it, too.
    with open(log, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
        for _ in range(MOST_DEATHS):
            status = subprocess.run(
                command,
                env=environment,
                cwd=os.environ.get("SIA_WORKING_FOLDER"),
                input=json.dumps(given),
                text=True,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            ).returncode
            if 0 <= status <= KILLED:
                break
    if status:
        killed = f"the process that submits it was killed {MOST_DEATHS} times (for memory?)"
        said = in_one_line(log.read_text(errors="replace")) if 0 <= status <= KILLED else killed
        raise UserError(f"the {cluster} cluster did not take {tasks[0].name}: {said} (see {log})")


def _closed_folders(tasks: Sequence[Task]) -> Path:
    """Make the folders of the tasks' pickles; the uppermost one around them into which nobody else may write.

    Raises UserError where somebody may: jobs refuse it, too.
    """
    folders = [task.jobs.absolute() for task in tasks]
    top = runs_root() if folders[0].is_relative_to(runs_root()) else folders[0].parent
    for folder in dict.fromkeys(folders):
        if fault := gate.open_between(top, folder.parent):
            raise UserError(fault)
        gate.own_folder(folder)
    return top


def main(code: str, top: str, cluster: Cluster) -> None:
    """The submitting process: the profile and the tasks are read from its standard input."""
    gate.close_umask()
    _leave_parent()
    import cloudpickle

    given = json.load(sys.stdin)
    tasks: list[Task] = [Bootstrap(**one).task() for one in given["tasks"]]
    profile = Profile.model_validate(given["profile"])
    cloudpickle.register_pickle_by_value(of_task)
    lock = HeartbeatLock(tasks[0].jobs / "submit.lock", on_lost=lambda: os._exit(1))
    while True:  # another one may be at it: its driver was killed, and the next one asks for the same
        with suppress(LockHeld):
            lock.acquire()
            break
        time.sleep(1.0)
    try:
        if fresh := [task for task in tasks if not _has_job(task)]:
            study = gate.study_in(Path(top), tasks[0].jobs.absolute())
            _submit(fresh, code, cluster, profile, through_gate(Path(code), Path(top), study))
    finally:
        lock.release()


def through_gate(code: Path, top: Path, study: str = "") -> str:
    """The interpreter of a job, as a shell's words: whatever its arguments are, it enters by the copy's own sia.gate.

    The words are in what the cluster keeps of the job: nobody can change the gate, and have it run, afterwards.
    """
    own = code / "sia" / "gate.py"
    known = hashlib.sha256(own.read_bytes()).hexdigest()
    said = f"error: {own} is not as it was when the job was submitted; {gate.anew(study)}"
    read = f"import hashlib, sys; gate = open({str(own)!a}, 'rb').read()"
    check = f"hashlib.sha256(gate).hexdigest() == '{known}' or sys.exit({said!a})"
    text = f"{read}; {check}; exec(gate); enter({str(code)!a}, {str(top)!a})"
    return f"{shlex.quote(sys.executable)} -u -c {shlex.quote(text)}"


def _leave_parent() -> None:
    """Go on in a process that is nobody's child but this one's, which waits for it: Ray ends its workers' children."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        os._exit(ended if ended >= 0 else KILLED - ended)
    os.setsid()


def _submit(fresh: list[Task], code: str, cluster: Cluster, profile: Profile, python: str) -> None:
    token = os.environ[TOKEN] = uuid4().hex
    executor = _executor(fresh[0], cluster, profile, python, token)
    array = len(fresh) > 1 and cluster == "slurm"
    begun = Submission(
        cluster=cluster,
        name=fresh[0].name,
        host=socket.gethostname(),
        folder=str(fresh[0].jobs),  # where an array's logs lie
        code=code,
        user=os.getuid(),
        profile=profile.for_records(),
        token=token,
    )
    for number, task in enumerate(fresh):
        begun.model_copy(update={"element": number if array else None}).write(begun_of(task.job_record))
    with executor.batch() if len(fresh) > 1 else nullcontext():
        jobs = [executor.submit(bootstrap_of(task)) for task in fresh]
    for task, job in zip(fresh, jobs, strict=True):
        _write_down(task, begun, str(job.job_id))


def _write_down(task: Task, begun: Submission, job_id: str) -> None:
    job = Job(**begun.model_dump(), job_id=job_id, time=time.time())
    job.write(task.job_record)
    begun_of(task.job_record).unlink()
    if (stopped := task.files.stopped) is not None and stopped.exists():
        # Cancelled while the cluster took it: whoever cancelled knew of no job.
        print(*cancel_jobs([job]).values(), sep="\n")


def _has_job(task: Task) -> bool:
    """Whether a job of the task is in the queue: by its record, or by what a submission left that was killed.

    The latter gets its record, and its pickle where that is still missing. Raises UserError where nobody can tell.
    """
    job, left = Job.read(task.job_record), Submission.read(begun_of(task.job_record))
    if job is not None and is_in_queue(job):
        return True
    if left is None or (job_id := job_of(left)) is None:
        return False
    import cloudpickle
    from submitit.core.utils import DelayedSubmission, JobPaths

    pickle = JobPaths(left.folder, job_id).submitted_pickle
    if not pickle.exists():
        delayed = DelayedSubmission(bootstrap_of(task))
        delayed.set_timeout(left.profile["timeout_min"], MOST_TIMEOUTS)
        write_atomically(pickle, lambda stream: stream.write(cloudpickle.dumps(delayed)))
    _write_down(task, left, job_id)
    return True


def _executor(
    task: Task, cluster: Cluster, profile: Profile, python: str, token: str
) -> "LocalExecutor | SlurmExecutor":
    from submitit import LocalExecutor, SlurmExecutor

    if cluster == "slurm":
        slurm = SlurmExecutor(task.jobs, max_num_timeout=MOST_TIMEOUTS, python=python)
        slurm.update_parameters(
            **{**profile.slurm_parameters(task.name, task.starts_steps), "setup": [script_mark(token), *profile.setup]}
        )
        return slurm
    local = LocalExecutor(task.jobs, max_num_timeout=MOST_TIMEOUTS, python=python)
    local.update_parameters(
        tasks_per_node=profile.tasks_per_node,
        gpus_per_node=profile.gpus_per_node,
        timeout_min=profile.timeout_min,
        setup=profile.setup or (),
    )
    # Not through the method, which takes numbers only; a GPU may be named by its UUID.
    local.parameters["visible_gpus"] = visible_gpus()[: profile.gpus_per_node]
    return local


def script_mark(token: str) -> str:
    """The line of the job's script by which it is found."""
    return f"# {TOKEN}={token}"


def job_of(left: Submission) -> str | None:
    """The number of the job that came of a submission whose submitting process is dead; None where none did.

    left: the record that it made before it asked the cluster. Raises UserError where the queue does not answer.
    """
    here = left.host == socket.gethostname()
    while here and any(Path(word).name == "sbatch" for words in _marked(left.token).values() for word in words):
        time.sleep(POLL_SECONDS)  # it outlives who called it, and may yet hand the job in
    if left.cluster == "slurm":
        return _in_slurm(left)
    marked = _marked(left.token) if here else {}
    started = [pid for pid, words in marked.items() if any("submitit.local._local" in word for word in words)]
    # The eldest: setup lines make the controller a shell's child, and the job's number is the shell's.
    return str(min(started, key=_began)) if started else None


def _in_slurm(left: Submission) -> str | None:
    answer = ask(["squeue", "--user", str(os.getuid()), "--array", "--noheader", "--format", "%i %o"], ANSWER_SECONDS)
    if not answer.good:
        raise UserError(f"squeue: {' '.join(answer.errors.split()) or 'it says nothing'}")
    place = "" if left.element is None else str(left.element)  # in its array: that of job 17_3 is 3
    for line in answer.output.splitlines():
        job_id, _, script = line.strip().partition(" ")
        if job_id.partition("_")[2] == place and _is_of(Path(script), left):
            return job_id
    return None


def _is_of(script: Path, left: Submission) -> bool:
    try:
        return str(script.parent) == left.folder and script_mark(left.token) in script.read_text()
    except OSError:
        return False


def _marked(token: str) -> dict[int, list[str]]:
    """The living processes of this host that have the token, and their command lines."""
    return dict(processes(f"{TOKEN}={token}"))


def _began(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 1 << 62
