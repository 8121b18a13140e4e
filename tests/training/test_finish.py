import json
import re
import shutil
from pathlib import Path

import pytest
import stages
import tiny_corpus
from written_runs import status_table

from sia.atomic import read_json, write_json
from sia.config import Experiment, Stage, resolve
from sia.distributed import Ranks
from sia.errors import UserError
from sia.evaluation.evaluate import evaluate_run
from sia.run.folder import RunFolder
from sia.run.records import Finished
from sia.run.row_files import read_rows
from sia.run.selection import selection_keys
from sia.sweep.chain import plan_stage
from sia.training.finish import finish_run

MEASURES = {"R_at_1", "R_at_5", "R_at_10", "median_rank", "mean_rank"}
CHAIN = (Stage(epochs=2), Stage(epochs=1, lr_scale=0.5))


@pytest.fixture(scope="module")
def two_stages(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    settings = tiny_corpus.experiment(*CHAIN, **{"data.folder": str(corpus)})
    return stages.trained(tmp_path_factory.mktemp("two_stages"), settings)


@pytest.fixture
def run(two_stages: RunFolder, tmp_path: Path) -> RunFolder:
    """Both stages are done, the test split has not been measured."""
    return RunFolder(Path(shutil.copytree(two_stages.path, tmp_path / two_stages.name)))


def renamed(run: RunFolder, settings: Experiment) -> RunFolder:
    """The same files as a run of other settings."""
    run.config.unlink()
    other = RunFolder(run.path.rename(run.path.with_name(settings.run_name)))
    other.create(settings)
    return other


def rows_of_test(run: RunFolder) -> list[dict[str, float]]:
    return [row for row in read_rows(run.metrics) if "stage_epoch" not in row]


def test_the_best_epoch_of_all_stages_is_measured_on_test(run: RunFolder) -> None:
    finish_run(run, Ranks())
    finished = read_json(run.finished)
    best = max((row for row in read_rows(run.metrics) if "stage_epoch" in row), key=value_of)
    assert (finished["best_stage"], finished["best_epoch"]) == (best["stage"], best["epoch"])
    assert finished["best_value"] == value_of(best)
    measured = evaluate_run(run, "best", "test", intervals=True)["measures"]
    assert finished["test"].items() <= measured.items()
    assert {key.partition("/")[2] for key in finished["test"]} == MEASURES | {"R_at_10_low", "R_at_10_high"}
    assert (finished["num_test_captions"], finished["num_test_images"], finished["world_size"]) == (16, 16, 1)
    assert finished["seconds"] == sum(read_json(run.stage(number).done)["seconds"] for number in (1, 2))


def value_of(row: dict[str, float], split: str = "validation") -> float:
    return sum(row[f"{split}/{way}/R_at_10"] for way in ("speech_to_image", "image_to_speech")) / 2


def test_the_test_row_is_written_once_by_the_first_rank(run: RunFolder) -> None:
    """Also after a job that died before the marker."""
    before = run.metrics.read_bytes()
    finish_run(run, Ranks(rank=1, world_size=1))
    assert run.metrics.read_bytes() == before and not run.finished.exists()
    finish_run(run, Ranks())
    after_first = run.metrics.read_bytes(), run.finished.read_bytes()
    finish_run(run, Ranks())
    assert (run.metrics.read_bytes(), run.finished.read_bytes()) == after_first
    (row,) = rows_of_test(run)
    finished = Finished.read(run.finished)
    assert (row["stage"], row["epoch"]) == (2, finished.best_epoch)
    assert {key: row[f"test/{key}"] for key in finished.test} == finished.test
    run.finished.unlink()
    with open(run.metrics, "a") as stream:
        stream.write(json.dumps({"stage": 2, "epoch": 1})[:9])
    finish_run(run, Ranks())
    assert len(rows_of_test(run)) == 1 and len(read_rows(run.metrics)) == 4


def test_what_a_run_kept_can_be_evaluated(run: RunFolder) -> None:
    """Each with the measures of its row; epochs that are neither a stage's best nor its last were not kept."""
    rows = {row["epoch"]: row for row in read_rows(run.metrics)}
    kept = {stages.saved(path)["progress"]["epochs_done"] for path in run.stage(1).last.parent.glob("*.pt")}
    for wanted in ("best", "last", *(f"epoch={epoch}" for epoch in {2, 3} | kept)):
        result = evaluate_run(run, wanted, "validation")
        row = rows[result["epoch"]]
        assert result["measures"] == {key: row[f"validation/{key}"] for key in result["measures"]}
        assert (result["stage"], result["num_captions"], result["num_images"]) == (row["stage"], 16, 16)
    run.stage(1).best.unlink()
    with pytest.raises(UserError, match="no checkpoint epoch=1"):
        evaluate_run(run, "epoch=1", "validation")


def test_samples_pools_and_folds(run: RunFolder) -> None:
    """16 images of a caption each: four pools of 5, the last of one image."""
    whole = evaluate_run(run, "last", "test")
    counts = ("num_captions", "num_images", "num_candidates", "pool", "folds", "pool_sizes")
    assert [whole[key] for key in counts] == [16, 16, 16, 16, 1, [16]]
    assert evaluate_run(run, "last", "test", pool=1000) == whole
    result = evaluate_run(run, "last", "test", pool=5, folds=4)
    assert [result[key] for key in counts] == [16, 16, 16, 5, 4, [5, 5, 5, 1]]
    assert result["measures"]["speech_to_image/R_at_5"] == 1.0
    first = evaluate_run(run, "last", "test", pool=5)
    assert [first[key] for key in counts] == [5, 5, 16, 5, 1, [5]]
    told = "pool 5, folds 5: 16 images make 4 such pools; give a pool of at most 3 images, or fewer folds"
    with pytest.raises(UserError, match=told):
        evaluate_run(run, "last", "test", pool=5, folds=5)
    sample = evaluate_run(run, "last", "train", sample=10)
    assert sample["num_captions"] == 10 >= sample["num_images"]
    assert evaluate_run(run, "last", "train", sample=10) == sample


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other images and recordings than the run's, of the same make."""
    root = tmp_path_factory.mktemp("other")
    tiny_corpus.write_corpus(root / "raw", kinds=3, captions={"train": 1, "test": 2})
    return tiny_corpus.prepare(root / "raw", root / "prepared", num_shards=1).folder


def test_another_corpus_is_seen_with_the_statistics_of_the_runs_own(run: RunFolder, other_corpus: Path) -> None:
    result = evaluate_run(run, "last", "test", corpus=other_corpus)
    assert (result["corpus"], result["num_captions"], result["num_images"]) == (str(other_corpus), 18, 9)
    own = evaluate_run(run, "last", "test")
    settings = run.experiment()
    run = renamed(run, resolve(settings.model_dump(), {"data.normalisation": "corpus"}, source="test"))
    by_corpus = evaluate_run(run, "last", "test", corpus=other_corpus)["measures"]
    description = read_json(other_corpus / "corpus.json")
    statistics = {key: read_json(run.corpus)[key] for key in ("pixel_mean", "pixel_std")}
    assert statistics != {key: description[key] for key in statistics}
    write_json(other_corpus / "corpus.json", {**description, **statistics})
    assert evaluate_run(run, "last", "test", corpus=other_corpus)["measures"] == by_corpus
    assert own["corpus"] == settings.data.folder


def test_a_corpus_of_other_features_is_refused(run: RunFolder, other_corpus: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(other_corpus, tmp_path / "filterbanks"))
    description = read_json(folder / "corpus.json")
    write_json(folder / "corpus.json", {**description, "features": {**description["features"], "hop_length": 80}})
    with pytest.raises(UserError, match="hop_length 80"):
        evaluate_run(run, "last", "test", corpus=folder)


def test_the_papers_protocol_chooses_on_test(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its epochs are measured on test, the best of them is chosen by that, and nothing on validation."""
    settings = {"data.folder": str(corpus), "training.select_on": "test"}
    run = stages.trained(tmp_path, tiny_corpus.experiment(Stage(epochs=3), **settings))
    rows = read_rows(run.metrics)
    shares = [f"{100 * rows[2][key]:.1f}" for key in selection_keys("test")]
    told = "stage 1 epoch 3: loss .*, test R@10 in percent: speech->image {}, image->speech {}, ".format(*shares)
    assert re.search(told, capsys.readouterr().out)
    assert {key.partition("/")[0] for row in rows for key in row if "/" in key} == {"test", "train"}
    finish_run(run, Ranks())
    finished, best = read_json(run.finished), max(rows, key=lambda row: value_of(row, "test"))
    assert (finished["best_epoch"], finished["best_value"]) == (best["epoch"], value_of(best, "test"))
    assert finished["test"]["speech_to_image/R_at_10"] == best["test/speech_to_image/R_at_10"]
    assert evaluate_run(run, "best", "test")["selected_on"] == "test"
    assert status_table([run]).title.startswith(f"{run.study}: R@10 on test (the paper's protocol) of the last epoch")


def test_a_restart_by_hand_begins_at_any_kept_epoch(run: RunFolder) -> None:
    """The plan of a third stage, from the last epoch of the first."""
    settings = run.experiment().model_copy(update={"stages": [*CHAIN, Stage(epochs=1, start_from="last")]})
    run = renamed(run, settings)
    plan_stage(run, 3)
    assert read_json(run.stage(3).plan)["start_checkpoint"] == "stages/2/checkpoints/last.pt"
    assert stages.train(run, 3)
    assert read_rows(run.metrics)[-1]["epoch"] == 4
