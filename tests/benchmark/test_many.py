"""Parts that tell what many cost: runs that are made up, exponents, commands."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sia.benchmark import commands, scale
from sia.benchmark.harness import Action
from sia.benchmark.made_up_runs import make_up_study
from sia.operate.status import study_views
from sia.report.write import write_report


def test_runs_that_are_made_up_are_finished_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path))
    make_up_study(tmp_path / "study", 6, epochs=3)
    (study,) = study_views(["study"])
    assert [(run.state, run.epoch, run.best) for run in study.runs] == [("finished", 3, 0.75)] * 6
    assert "R@10" in write_report("study", tmp_path / "report").read_text()


def test_exponents_are_told_beside_what_each_size_takes() -> None:
    compared = scale.compare("nothing", 10, lambda count, folder: lambda: sum(range(count * 10_000)), turns=3)
    assert [*compared.seconds] == ["10 nothing", "20 nothing", "40 nothing", "80 nothing"]
    assert 0.8 < compared.facts["exponent"] < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("action", [scale.opening, scale.shuffling, scale.planning, scale.status, scale.report])
def test_what_is_scaled_can_be_done_again(
    action: Callable[[int, Path], Action], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    again = action(100 if action in (scale.opening, scale.shuffling) else 2, tmp_path)
    again()
    again()


def test_a_command_that_fails_is_no_figure() -> None:
    assert commands.compare("help", "submit.py --help", lambda folder: None, turns=1).facts
    with pytest.raises(subprocess.CalledProcessError):
        commands.compare("no study", "report.py no-such", lambda folder: None, turns=1)
