import json
import shutil
from pathlib import Path

import pytest
import stages
import tiny_corpus

from sia.atomic import read_json
from sia.config import Stage
from sia.distributed import Ranks
from sia.errors import UserError
from sia.run_folder import RunFolder
from sia.sweep.chain import plan_stage
from sia.tracking.metrics_log import read_rows
from sia.training.evaluation import evaluate_run
from sia.training.finish import finish_run

CHAIN = (Stage(epochs=2), Stage(epochs=1, lr_scale=0.5))


@pytest.fixture(scope="module")
def two_stages(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    settings = tiny_corpus.experiment(*CHAIN, **{"data.folder": str(corpus)})
    return stages.trained(tmp_path_factory.mktemp("two_stages"), settings)


@pytest.fixture
def run(two_stages: RunFolder, tmp_path: Path) -> RunFolder:
    """Both stages are done, the test split has not been measured."""
    return RunFolder(Path(shutil.copytree(two_stages.path, tmp_path / two_stages.name)))


def rows_of_test(run: RunFolder) -> list[dict[str, float]]:
    return [row for row in read_rows(run.metrics) if "stage_epoch" not in row]


def test_the_best_epoch_of_all_stages_is_measured_on_test(run: RunFolder) -> None:
    finish_run(run, Ranks())
    finished = read_json(run.finished)
    best = max((row for row in read_rows(run.metrics) if "stage_epoch" in row), key=value_of)
    assert (finished["best_stage"], finished["best_epoch"]) == (best["stage"], best["epoch"])
    assert finished["best_value"] == value_of(best)
    assert finished["test"] == evaluate_run(run, "best", "test")["measures"]
    assert (finished["num_test_captions"], finished["num_test_images"], finished["world_size"]) == (16, 16, 1)
    assert finished["seconds"] == sum(read_json(run.stage(number).done)["seconds"] for number in (1, 2))


def value_of(row: dict[str, float]) -> float:
    return sum(row[f"validation/{way}/R_at_10"] for way in ("speech_to_image", "image_to_speech")) / 2


def test_the_test_row_is_written_once(run: RunFolder) -> None:
    finish_run(run, Ranks())
    after_first = run.metrics.read_bytes(), run.finished.read_bytes()
    finish_run(run, Ranks())
    assert (run.metrics.read_bytes(), run.finished.read_bytes()) == after_first
    (row,) = rows_of_test(run)
    assert (row["stage"], row["epoch"]) == (2, read_json(run.finished)["best_epoch"])
    assert {key: row[f"test/{key}"] for key in read_json(run.finished)["test"]} == read_json(run.finished)["test"]


def test_a_job_that_died_before_the_marker_leaves_no_second_row(run: RunFolder) -> None:
    finish_run(run, Ranks())
    run.finished.unlink()
    with open(run.metrics, "a") as stream:
        stream.write(json.dumps({"stage": 2, "epoch": 1})[:9])
    finish_run(run, Ranks())
    assert len(rows_of_test(run)) == 1 and len(read_rows(run.metrics)) == 4


def test_a_second_rank_writes_nothing(run: RunFolder) -> None:
    before = run.metrics.read_bytes()
    finish_run(run, Ranks(rank=1, world_size=1))
    assert run.metrics.read_bytes() == before and not run.finished.exists()


@pytest.mark.parametrize("wanted", ["best", "last", "epoch=1", "epoch=2", "epoch=3"])
def test_what_a_run_kept_can_be_evaluated(run: RunFolder, wanted: str) -> None:
    """Each with the measures of its row; epochs that are neither a stage's best nor its last were not kept."""
    rows = {row["epoch"]: row for row in read_rows(run.metrics)}
    kept = {stages.saved(path)["progress"]["epochs_done"]: path for path in run.stage(1).last.parent.glob("*.pt")}
    if wanted == "epoch=1" and 1 not in kept:
        with pytest.raises(UserError, match="no checkpoint epoch=1"):
            evaluate_run(run, wanted, "validation")
        return
    result = evaluate_run(run, wanted, "validation")
    row = rows[result["epoch"]]
    assert result["measures"] == {key: row[f"validation/{key}"] for key in result["measures"]}
    assert (result["stage"], result["num_captions"], result["num_images"]) == (row["stage"], 16, 16)


def test_a_sample_of_a_split(run: RunFolder) -> None:
    result = evaluate_run(run, "last", "train", sample=10)
    assert result["num_captions"] == 10 and result["num_images"] <= 10
    assert evaluate_run(run, "last", "train", sample=10) == result


def test_a_restart_by_hand_begins_at_any_kept_epoch(run: RunFolder) -> None:
    """The plan of a third stage, from the last epoch of the first."""
    settings = run.experiment().model_copy(update={"stages": [*CHAIN, Stage(epochs=1, start_from="last")]})
    run.config.unlink()
    run.create(settings)
    plan_stage(run, 3)
    assert read_json(run.stage(3).plan)["start_checkpoint"] == "stages/2/checkpoints/last.pt"
    assert stages.train(run, 3)
    assert read_rows(run.metrics)[-1]["epoch"] == 4
