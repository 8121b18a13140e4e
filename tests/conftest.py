"""Tests marked `slurm` need a cluster that answers: skipped without one, failed under SIA_REQUIRE_SLURM=1."""

import functools
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import tiny_corpus

# Tables are as wide as the terminal that these tell of: pytest-xdist tells its workers of one.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

CURE = 'To run them: eval "$(slurm/devcluster/up | tail -n 1)", then the tests again.'


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small prepared corpus, not to be changed: 48 training captions, 16 of each other split."""
    root = tmp_path_factory.mktemp("corpus")
    tiny_corpus.write_corpus(root / "raw", kinds=4, captions={"train": 3, "validation": 1, "test": 1})
    return tiny_corpus.prepare(root / "raw", root / "prepared").folder


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty sqlite file, to be copied: making one takes seconds."""
    from sia.trackers.mlflow.store import connect

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@functools.cache
def slurm_problem() -> str:
    """Why Slurm cannot run jobs here; empty when sinfo shows nodes."""
    if shutil.which("sinfo") is None:
        return "no Slurm: sinfo is not installed"
    try:
        answer = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, timeout=5)
    except subprocess.TimeoutExpired:
        return "no Slurm: sinfo did not answer within 5 s"
    if answer.returncode or not answer.stdout.strip():
        return f"no Slurm: sinfo says {(answer.stderr.strip() or 'nothing').splitlines()[-1]!r}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: else one process waits at the end for the other's."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slurm") and slurm_problem():
        pytest.skip(slurm_problem())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under SIA_REQUIRE_SLURM=1 a skipped Slurm test is a failed one, whoever skipped it."""
    report = yield
    if report.skipped and item.get_closest_marker("slurm") and os.environ.get("SIA_REQUIRE_SLURM") == "1":
        report.outcome = "failed"
        report.longrepr = f"SIA_REQUIRE_SLURM=1 allows no skip, but: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """The last lines: how many Slurm tests ran, which did not, why, and the cure. .ci/run reads the first."""
    yield
    passed, failed, errors, skipped = (
        [report for report in terminalreporter.stats.get(outcome, []) if "slurm" in getattr(report, "keywords", ())]
        for outcome in ("passed", "failed", "error", "skipped")
    )
    terminalreporter.write_line(
        f"Slurm tests: {len(passed)} passed, {len(failed) + len(errors)} failed, {len(skipped)} skipped"
    )
    for report in skipped:
        terminalreporter.write_line(f"  skipped {report.nodeid}: {_reason(report)}")
    if skipped:
        terminalreporter.write_line(CURE)


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
