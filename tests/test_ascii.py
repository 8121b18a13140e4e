"""Every command on a terminal that knows ASCII alone."""

import subprocess
from pathlib import Path

import pytest
from desk import REPOSITORY, Desk, values
from written_runs import experiment, finish_run

from sia.run.records import Study

COMMANDS = sorted(path.name for path in (REPOSITORY / "jobs").glob("*.py"))
PLAIN = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}


@pytest.fixture(scope="module")
def desk(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("ascii"))
    for seed in (0, 1):
        finish_run(made.folder / "runs", "size", experiment(**{"training.seed": seed}))
    Study(question="Où est-il → là ?").write(made.folder / "runs" / "size" / "study.json")
    made.write("grid.yaml", {"question": "Plus ≤ mieux ?", "experiment": values(corpus), "seeds": [0, 1]})
    return made


def in_ascii(desk: Desk, *arguments: str) -> str:
    """What is printed; its streams are read as ASCII, strictly."""
    done = subprocess.run(
        desk.command(*arguments),
        cwd=desk.folder,
        env={**desk.environment, **PLAIN},
        capture_output=True,
        encoding="ascii",
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_is_shown_in_ascii(desk: Desk, command: str) -> None:
    assert f"usage: {command}" in in_ascii(desk, command, "--help")


def test_a_finished_study_is_shown_in_ascii(desk: Desk) -> None:
    status = in_ascii(desk, "status.py", "size")
    assert r"O\xf9 est-il -> l\xe0 ?" in status and "s->i" in status and "47.5" in status
    plan = in_ascii(desk, "submit.py", "--grid", "grid.yaml", "--cluster", "local", "--dry-run")
    assert "Plus <= mieux ?" in plan and "2 runs" in plan
    assert in_ascii(desk, "report.py", "size", "--no-gallery").endswith("report.html\n")
    assert "Où est-il → là ?" in (desk.folder / "reports" / "size" / "report.html").read_text()
