"""A job looks at its folders, its pickle and its code before it loads any of them."""

import os
import pickle
import py_compile
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from sia.cluster.snapshot import snapshot
from sia.cluster.submit import through_gate
from sia.gate import own_folder

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
COLLEAGUE = 4711


@dataclass
class Job:
    """A job as the local cluster starts it, whose pickle prints, and imports sia.errors."""

    runs: Path
    jobs: Path
    code: Path
    command: str = ""

    @property
    def pickle(self) -> Path:
        return self.jobs / "17_submitted.pkl"

    def start(self) -> "subprocess.CompletedProcess[str]":
        given = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "17", "SUBMITIT_LOCAL_GLOBALID": "0"}
        environment = {**os.environ, **given}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            f"{self.command} -u -m submitit.core._submit {self.jobs}",
            shell=True,
            cwd=self.runs.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    (tree / "sia").mkdir()
    (tree / "jobs").mkdir()
    (tree / "sia" / "__init__.py").write_text("")
    (tree / "sia" / "errors.py").write_text("SAID = 'as it was'\n")
    (tree / "sia" / "gate.py").write_bytes((Path(__file__).parents[1] / "sia" / "gate.py").read_bytes())
    return tree


@pytest.fixture
def job(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    made = Job(tmp_path / "runs", tmp_path / "runs" / "size" / "DG1A8-0123456789" / "jobs", snapshot(code))
    own_folder(made.jobs)
    call = "import os, sys; from sia.errors import SAID; print(SAID, oct(os.umask(0)), '' in sys.path)"
    with open(made.pickle, "wb") as stream:
        pickle.dump(DelayedSubmission(exec, call), stream)
    made.command = through_gate(made.code, made.runs, "size")
    return made


def test_what_is_the_owners_alone_runs_and_nothing_of_the_working_folder(job: Job) -> None:
    job.jobs.parent.parent.parent.chmod(0o700)
    (job.runs.parent / "submitit.py").write_text("raise SystemExit('the working folder')\n")
    done = job.start()
    assert done.returncode == 0, done.stderr
    assert "as it was 0o22 False" in done.stdout


OPENED: dict[str, Callable[[Job], Path]] = {
    "runs": lambda job: job.runs,
    "study": lambda job: job.jobs.parents[1],
    "run": lambda job: job.jobs.parent,
    "jobs": lambda job: job.jobs,
    "pickle": lambda job: job.pickle,
    "a copy": lambda job: job.code / "sia" / "errors.py",
}
WRITTEN = {
    "sia/errors.py": "SAID = 'poisoned'\n",
    "sia/errors.abi3.so": "a new module",
    "submitit.py": "print('in place of a package')\n",
    "sia/gate.py": "def enter(*given):\n    print('poisoned')\n",
}


def refused(job: Job) -> str:
    done = job.start()
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("path", OPENED.values(), ids=OPENED)
def test_what_others_can_write_is_named_and_not_run(job: Job, path: Callable[[Job], Path]) -> None:
    path(job).chmod(path(job).stat().st_mode | 0o020)
    said = refused(job)
    assert said.startswith(f"error: {path(job)} ") and "chmod -R go-w" in said


@pytest.mark.parametrize("name", WRITTEN)
def test_what_was_changed_is_named_and_not_run(job: Job, name: str) -> None:
    (job.code / name).write_text(WRITTEN[name])
    said = refused(job).rstrip()
    assert said.startswith(f"error: {job.code / name} ")
    assert said.endswith("; python jobs/submit.py --again size copies the code anew")


@root_only
@pytest.mark.parametrize("of", ["runs", "jobs", "pickle", "code"])
def test_what_belongs_to_somebody_else_is_not_run(job: Job, of: str) -> None:
    os.chown(getattr(job, of), COLLEAGUE, COLLEAGUE)
    assert f"error: {getattr(job, of)} belongs to another user" in refused(job)


def test_a_poisoned_cache_is_not_run(job: Job, tmp_path: Path) -> None:
    """Python would run it: it tells the time and the size of the source."""
    source, other = job.code / "sia" / "errors.py", tmp_path / "other.py"
    other.write_text(source.read_text().replace("as it was", "otherwise"))
    os.utime(other, (source.stat().st_atime, source.stat().st_mtime))
    py_compile.compile(str(other), cfile=cache_from_source(str(source)), doraise=True)
    assert "as it was" in job.start().stdout
