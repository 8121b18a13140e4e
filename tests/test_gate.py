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
    made.command = through_gate(made.code, made.runs)
    return made


def test_what_is_the_owners_alone_runs(job: Job) -> None:
    job.jobs.parent.parent.parent.chmod(0o700)
    done = job.start()
    assert done.returncode == 0, done.stderr
    assert "as it was 0o22 False" in done.stdout


def opened(path: Callable[[Job], Path]) -> Callable[[Job], Path]:
    def spoil(job: Job) -> Path:
        path(job).chmod(path(job).stat().st_mode | 0o020)
        return path(job)

    return spoil


def written(name: str, text: str = "SAID = 'poisoned'\n") -> Callable[[Job], Path]:
    def spoil(job: Job) -> Path:
        (job.code / name).write_text(text)
        return job.code / name

    return spoil


SPOILT = {
    "runs": opened(lambda job: job.runs),
    "study": opened(lambda job: job.jobs.parents[1]),
    "run": opened(lambda job: job.jobs.parent),
    "jobs": opened(lambda job: job.jobs),
    "pickle": opened(lambda job: job.pickle),
    "copies": opened(lambda job: job.code / "sia" / "errors.py"),
    "changed": written("sia/errors.py"),
    "new module": written("sia/errors.abi3.so"),
    "in place of a package": written("submitit.py"),
    "the gate": written("sia/gate.py", "def enter(*given):\n    print('poisoned')\n"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_what_others_can_write_or_was_changed_is_named_and_not_run(job: Job, spoil: Callable[[Job], Path]) -> None:
    path = spoil(job)
    done = job.start()
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {path} ") and done.stderr.count("\n") == 1
    assert "chmod -R go-w" in done.stderr or "submit again" in done.stderr


@root_only
@pytest.mark.parametrize("of", ["runs", "jobs", "pickle", "code"])
def test_what_belongs_to_somebody_else_is_not_run(job: Job, of: str) -> None:
    os.chown(getattr(job, of), COLLEAGUE, COLLEAGUE)
    done = job.start()
    assert done.returncode == 1 and f"error: {getattr(job, of)} belongs to another user" in done.stderr


def test_a_poisoned_cache_is_not_run(job: Job, tmp_path: Path) -> None:
    """Python would run it: it tells the time and the size of the source."""
    source, other = job.code / "sia" / "errors.py", tmp_path / "other.py"
    other.write_text(source.read_text().replace("as it was", "otherwise"))
    os.utime(other, (source.stat().st_atime, source.stat().st_mtime))
    py_compile.compile(str(other), cfile=cache_from_source(str(source)), doraise=True)
    assert "as it was" in job.start().stdout


def test_a_module_of_the_working_folder_is_not_run(job: Job) -> None:
    (job.runs.parent / "submitit.py").write_text("raise SystemExit('the working folder')\n")
    assert job.start().returncode == 0
