"""A rehearsal that is left early leaves no process behind; real local jobs of two ranks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from desk import experiment, wait_until

from sia.run.folder import RunFolder
from sia.run.state import State, look

CHILD = """
import sys
from pathlib import Path
from sia import command
from sia.cluster.profile import Profile
from sia.cluster.launch import Launch
from sia.rehearsal.study import rehearse_one
from sia.run.folder import RunFolder
command.run(lambda: print(rehearse_one(RunFolder(Path(sys.argv[1])), Launch("local", Profile(tasks_per_node=2)))))
"""


def processes_of(runs: Path, besides: int) -> list[int]:
    """Those that were started for this runs folder, besides the rehearsing one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment, state = (place / "environ").read_bytes(), (place / "stat").read_text().rpartition(")")[2]
        except OSError:
            continue
        if f"SIA_RUNS={runs}".encode() in environment.split(b"\0") and "Z" not in state.split()[0]:
            found.append(int(place.name))
    return [pid for pid in found if pid != besides]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "ranks"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)],
    ids=["when its ranks run", "when it is being submitted"],
)
def test_whoever_leaves_ends_the_job_first(corpus: Path, tmp_path: Path, number: int, ranks: bool) -> None:
    runs = tmp_path / "runs"
    what = experiment(corpus)
    run = RunFolder(runs / "size.rehearsal" / what.run_name)
    run.create(what)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(run.path)],
        env={**os.environ, "SIA_RUNS": str(runs)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(processes_of(runs, child.pid)) >= (3 if ranks else 1), 60, "its job")
        child.send_signal(number)
        said = child.communicate(timeout=60)[1]
        assert child.returncode != 0 and "ending its job" in said
        assert processes_of(runs, child.pid) == []
        assert not run.rehearsal.exists() and look(run).state == State.STOPPED
    finally:
        child.kill()
        for process in processes_of(runs, child.pid):
            os.kill(process, signal.SIGKILL)
