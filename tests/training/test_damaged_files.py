"""Files of a run that lost a bit, a part, or altogether: named, and answered with the same end to the bit."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import stages
from stages import STEPS, experiment

from sia.atomic import read_json
from sia.checkpoint.chosen import choose_checkpoint, damage_of
from sia.checkpoint.state import load_chosen
from sia.config import Stage
from sia.distributed import Ranks
from sia.errors import UserError
from sia.evaluation.evaluate import evaluate_run
from sia.models.dual_encoder import DualEncoder
from sia.run.folder import RunFolder
from sia.run.mended import mend
from sia.run.records import Finished, StagePlan
from sia.sweep.chain import add_restart, plan_stage
from sia.training.finish import finish_run

EPOCHS = 4


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two stages, finished."""
    settings = experiment(corpus, Stage(epochs=EPOCHS), Stage(epochs=2, lr_scale=0.5))
    run = stages.trained(tmp_path_factory.mktemp("whole"), settings)
    finish_run(run, Ranks())
    return run


@pytest.fixture
def finished(whole: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(whole.path, tmp_path / whole.name)))


@pytest.fixture
def interrupted(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """In the third epoch of its first stage."""
    run = stages.begin(tmp_path, whole.experiment())
    assert stages.train(run, flag=stages.RaisedAfter(2 * STEPS + 1)) is False
    return run


def flip(path: Path, share: float = 0.5) -> None:
    """One bit, of another name of the file too."""
    with open(path, "r+b") as stream:
        place = int(share * os.fstat(stream.fileno()).st_size)
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 4]))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


Harm = Callable[[Path], None]
DAMAGES = [flip, cut, Path.unlink]
BOTH = pytest.mark.parametrize("harm", DAMAGES)


def harm_epoch(run: RunFolder, epoch: int | None, harm: Harm) -> None:
    """Every file that holds it."""
    for path in run.path.glob("stages/*/checkpoints/*.pt"):
        if stages.saved(path)["progress"]["rows"][-1]["epoch"] == epoch:
            harm(path)


def ends_as(run: RunFolder, whole: RunFolder) -> bool:
    """Trained on to the end of the first stage, it is the run that was never damaged."""
    assert stages.train(run) is True
    own = [row for row in stages.rows(whole) if row["stage"] == 1]
    assert stages.rows(run) == own
    return stages.same(stages.saved(run.stage(1).last)["model"], stages.saved(whole.stage(1).last)["model"])


@BOTH
@pytest.mark.parametrize("names", [["partial"], ["partial", "last"], ["partial", "last", "previous", "best"]])
def test_an_older_checkpoint_is_gone_on_from(
    interrupted: RunFolder, whole: RunFolder, names: list[str], harm: Harm, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [path for name in names if (path := getattr(interrupted.stage(1), name)).exists()]
    for path in {path.stat().st_ino: path for path in found}.values():
        harm(path)
    if "best" in names:
        interrupted.stage(1).weights_of_epoch(2).unlink()
    assert ends_as(interrupted, whole)
    said = capsys.readouterr().err
    assert harm is Path.unlink or "partial.pt: damaged" in said
    assert harm is Path.unlink or "going on from" in said or "beginning anew" in said


def test_kept_weights_are_gone_on_from_where_nothing_else_is_whole(
    interrupted: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = interrupted.stage(1)
    for path in (stage.partial, stage.last, stage.previous, stage.best):
        path.unlink(missing_ok=True)
    assert stages.train(interrupted) is True
    assert [row["epoch"] for row in stages.rows(interrupted)] == list(range(1, EPOCHS + 1))
    assert "epoch-0002.pt holds no Adam moments" in capsys.readouterr().err


def test_a_bit_of_a_checkpoint_is_found(finished: RunFolder) -> None:
    path = finished.stage(1).last
    content = path.read_bytes()
    for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        flip(path, share)
        try:
            found = damage_of(path) is not None
            harmless = not found and stages.same(stages.saved(path), stages.saved(path))
        except RuntimeError:
            found = True
        assert found or harmless, share
        path.write_bytes(content)
    assert damage_of(path) is None


@BOTH
def test_another_epoch_stands_in_for_a_best_that_is_damaged(
    finished: RunFolder, harm: Harm, capsys: pytest.CaptureFixture[str]
) -> None:
    best = choose_checkpoint(finished, "best")
    harm_epoch(finished, best.epoch, harm)
    stand_in = choose_checkpoint(finished, "best")
    assert stand_in.epoch != best.epoch and stand_in.value <= best.value
    assert f"epoch {stand_in.epoch} stands in for best" in capsys.readouterr().err
    assert evaluate_run(finished, "best", "test")["epoch"] == stand_in.epoch


def test_a_stage_starts_from_a_stand_in_and_its_plan_says_so(finished: RunFolder) -> None:
    shutil.rmtree(finished.stage(2).best.parent)
    finished.stage(2).done.unlink()
    finished.finished.unlink()
    before = StagePlan.read(finished.stage(2).plan)
    assert before is not None and before.start_checkpoint is not None
    harm_epoch(finished, before.start_epoch, cut)
    assert stages.train(finished, 2) is True
    after = StagePlan.read(finished.stage(2).plan)
    assert after is not None and after.start_epoch != before.start_epoch
    assert stages.rows(finished)[EPOCHS]["epoch"] == EPOCHS + 1


def test_an_epoch_has_no_stand_in_nor_a_run_that_lost_all_and_it_stays_finished(finished: RunFolder) -> None:
    for path in finished.path.glob("stages/*/checkpoints/*.pt"):
        cut(path)
    with pytest.raises(UserError, match="no checkpoint epoch=2"):
        choose_checkpoint(finished, "epoch=2")
    with pytest.raises(UserError, match="no checkpoint best"):
        add_restart(finished, "best", 1, 0.5)
    assert Finished.read(finished.finished) is not None and not finished.stage(3).plan.exists()


def test_an_epoch_is_the_one_that_its_file_holds(interrupted: RunFolder) -> None:
    """A job saved within epoch 3: last is the end of epoch 2, and epoch=2 is no part of epoch 3."""
    for wanted in ("last", "epoch=2"):
        model = DualEncoder.from_config(interrupted.experiment().model)
        chosen = load_chosen(interrupted, wanted, model, interrupted.experiment().model)
        content = stages.saved(chosen.path)
        assert chosen.epoch == 2 == content["progress"]["epochs_done"] and content["sampler"]["next_batch"] == 0
        assert stages.same(dict(model.state_dict()), content["model"])


def test_a_job_that_died_before_its_row_is_told_by_its_file(finished: RunFolder) -> None:
    stages.cut_last_row(finished)  # of the test split
    finished.finished.unlink()
    finished.stage(2).done.unlink()
    stages.cut_last_row(finished)
    architecture = finished.experiment().model
    finished.stage(2).best.unlink()
    chosen = load_chosen(finished, "last", DualEncoder.from_config(architecture), architecture)
    assert (chosen.epoch, chosen.stage) == (EPOCHS + 2, 2)


def test_rows_of_stages_that_are_done_outlive_metrics(finished: RunFolder, whole: RunFolder) -> None:
    content = finished.metrics.read_bytes()
    lines = content.splitlines(keepends=True)
    harms = [
        b"",
        content.replace(b"1", b"7", 1),
        b"".join(lines[:-1]),
        b"".join([*lines[:2], *lines[1:]]),
        b"".join(lines[:3]),
    ]
    for harmed in harms:
        finished.metrics.write_bytes(harmed)
        assert mend(finished), harmed
        assert finished.metrics.read_bytes() == whole.metrics.read_bytes()
    assert mend(finished) == []


@pytest.mark.parametrize("name", ["finished.json", "stages/1/done.json", "stages/2/plan.json", "provenance.jsonl"])
@pytest.mark.parametrize("content", ["{}", "", "[1]"])
def test_a_marker_that_is_damaged_is_derived_again(
    finished: RunFolder, whole: RunFolder, name: str, content: str
) -> None:
    (finished.path / name).write_text(content + "\n")
    assert any(name in line for line in mend(finished))
    for number in (1, 2):
        plan_stage(finished, number)
        assert finished.stage(number).done.exists() or stages.train(finished, number)
    finish_run(finished, Ranks())
    assert read_json(finished.stage(2).plan) == read_json(whole.stage(2).plan)
    assert stages.rows(finished) == stages.rows(whole)
    assert read_json(finished.finished)["test"] == read_json(whole.finished)["test"]  # type: ignore[index]


def test_a_configuration_of_another_signature_is_named_and_written_anew(finished: RunFolder) -> None:
    settings = finished.experiment()
    text = finished.config.read_text()
    finished.config.write_text(text.replace("epochs: 4", "epochs: 5"))
    with pytest.raises(UserError, match=r"config\.yaml: damaged \(its signature is"):
        finished.experiment()
    finished.create(settings)
    assert finished.experiment() == settings
