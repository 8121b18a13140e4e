"""A colleague, who may read a study but not write into it, sees its status and its logs."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_status import STEP
from written_runs import begin_run, epoch_row, experiment

from sia.atomic import write_json
from sia.gate import own_folder
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock
from sia.run.row_files import write_rows
from sia.run.steps import StepWriter

COLLEAGUE = 4711
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


def as_colleague(root: Path, call: str) -> str:
    """What a process of another user prints; it reads nothing but the runs as that user."""
    code = f"""
import os
from sia.operate.logs import Follower, logs_of_run
from sia.operate.status import run_views
from sia.run.folder import runs_of, studies
os.setgid({COLLEAGUE}); os.setuid({COLLEAGUE})
{call}
"""
    command = ["python", "-c", code]
    environment = {**os.environ, "SIA_RUNS": str(root), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that everybody may reach, as pytest's own is not, with a run whose job has just written its log."""
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o755)
        yield written(Path(shared) / "runs")


def written(root: Path) -> Path:
    run = begin_run(root, "size", experiment())
    own_folder(run.jobs)
    write_json(run.stage(1).job, {"cluster": "local", "job_id": "17", "host": "n1", "folder": str(run.jobs)})
    write_rows(run.metrics, [epoch_row(1, 1, 1, 0.5)])
    StepWriter(run.steps, 0).add(STEP)
    (run.jobs / "17_0_log.out").write_text("stage 1, epoch 2 of 3: 5 of 10\n")
    return root


VIEW = "one = run_views(runs_of('size'))[0]\nprint(one.state, one.share_of_epoch)"


def test_status_and_logs(root: Path) -> None:
    """Steps that are closed to them hide no run."""
    (run,) = map(RunFolder, root.glob("size/DG*"))
    with HeartbeatLock(run.lock, job_id="17", stage=1, cluster="local"):
        assert as_colleague(root, VIEW) == "running 0.25\n"
        news = "print(*Follower(logs_of_run(runs_of('size')[0], None), 0, False).news(), sep='')"
        assert "5 of 10" in as_colleague(root, news)
        run.steps.chmod(0o600)
        assert as_colleague(root, VIEW) == "running None\n"


def test_closed_studies_are_told_so(root: Path) -> None:
    root.chmod(0o700)
    call = "try:\n    studies()\nexcept Exception as error:\n    print(error)"
    assert f"{root}: Permission denied" in as_colleague(root, call)


SUBMITTED = """
from pathlib import Path
from desk import wait_until
from sia.run.records import Job
from sia.cluster.stage_job import TrainStage
from sia.cluster.profile import Profile
from sia.run.queue import is_in_queue
from sia.cluster.submit import submit
from sia.command import run
from sia.run.folder import runs_root
task = TrainStage(str(runs_root() / "size" / "DG1A8-0123456789"), 1, threads=1)
def main() -> None:
    runs_root().mkdir()
    submit(task, "local", Profile())
    wait_until(lambda: not is_in_queue(Job.read(task.job_record)), 60, "the job's end")
run(main)
"""


def test_a_colleague_of_the_same_group_can_change_nothing_that_runs(root: Path) -> None:
    """Though the user's umask lets the group write: whoever changes a pickle has it run as its owner."""
    runs = root.parent / "group" / "runs"
    runs.parent.mkdir()
    environment = {**os.environ, "SIA_RUNS": str(runs), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SUBMITTED], env=environment, group=COLLEAGUE, umask=0o002, check=True)
    assert list(runs.glob("size/*/jobs/*.pkl")) and {path.stat().st_gid for path in runs.rglob("*")} == {COLLEAGUE}
    call = f"""
from pathlib import Path
print([path for path in (Path({str(runs)!r}), *Path({str(runs)!r}).rglob("*")) if os.access(path, os.W_OK)])
print(len(list(Path({str(runs)!r}).rglob("*_log.err"))))
"""
    assert as_colleague(root, call) == "[]\n1\n"
