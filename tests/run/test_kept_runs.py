"""Run folders as an earlier release wrote them are still the runs of their configurations."""

import shutil
from pathlib import Path

import pytest
from desk import REPOSITORY

from sia.atomic import read_json, write_json
from sia.config import load_experiment
from sia.errors import UserError
from sia.models.backbones import DenseNet, ResNet
from sia.objectives import Hinge, InfoNce
from sia.operate.status import view
from sia.report.summary import summarise
from sia.run.folder import RunFolder
from sia.run.mended import mend, rows_of
from sia.run.state import look
from sia.schedules import Calr, Calwr, Cylr

FIXTURES = REPOSITORY / "tests" / "fixtures"
RELEASES = sorted(path.name for path in FIXTURES.glob("run-*"))


@pytest.fixture(params=RELEASES)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, RunFolder]:
    """The runs of a release, by their state."""
    shutil.copytree(FIXTURES / request.param, tmp_path / "runs")
    runs = [RunFolder(path) for path in sorted((tmp_path / "runs" / "kept").iterdir())]
    return {look(run).state.value: run for run in runs}


def test_each_is_the_run_of_its_configuration(kept: dict[str, RunFolder]) -> None:
    assert "run-0.1" in RELEASES
    for run in kept.values():
        assert load_experiment(run.config).run_name == run.experiment().run_name == run.name


def test_their_states_and_stages(kept: dict[str, RunFolder]) -> None:
    assert {state: look(run).stage for state, run in kept.items()} == {"finished": 2, "failed": 2, "stopped": 1}
    assert look(kept["failed"]).error == "loss is nan at step 7; lower optimizer.learning_rate"
    assert look(kept["stopped"]).stopped_by == "cancel"


def test_their_settings(kept: dict[str, RunFolder]) -> None:
    finished, failed, stopped = (kept[state].experiment() for state in ("finished", "failed", "stopped"))
    assert (finished.loss, failed.loss) == (Hinge(), InfoNce(temperature=0.1))
    assert [stage.schedule for stage in finished.stages] == [Calwr(), Calr()]
    assert [stage.schedule for stage in kept["failed"].planned_stages()] == [Cylr(), Calr()]
    assert (finished.model.image, stopped.model.image) == (DenseNet(blocks=[2, 2]), ResNet())


def test_their_rows_and_what_came_of_them(kept: dict[str, RunFolder]) -> None:
    *epochs, test = rows_of(kept["finished"])
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5] and test["test/speech_to_image/R_at_10"] == 0.5
    summary = summarise(kept["finished"])
    assert (summary.best_epoch, summary.best_stage, summary.test["speech_to_image/R_at_10"]) == (4, 2, 0.5)
    assert [(one.after_epoch, one.from_epoch) for one in summary.restarts] == [(1, None), (3, 2)]
    assert (summary.corpus_identity, summary.commit) == ("0123abcd", "a" * 40)
    assert [view(kept[state]).epoch for state in ("failed", "stopped")] == [1, 1]
    assert (view(kept["finished"]).best, view(kept["stopped"]).error) == (pytest.approx(0.475), "by cancel")


def test_what_a_later_version_wrote_is_left_as_it_is(kept: dict[str, RunFolder]) -> None:
    run = kept["finished"]
    for path in (run.finished, run.stage(1).done, run.stage(2).plan):
        values = read_json(path)
        write_json(path, {**(values or {}), "of_a_later_version": 1})
        later = path.read_bytes()
        with pytest.raises(UserError, match=rf"{path}: not a .* of this program \(of_a_later_version.*use the version"):
            mend(run)
        assert path.read_bytes() == later
        write_json(path, values or {})
    assert mend(run) == []
