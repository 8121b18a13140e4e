"""A corpus that is not there, or does not hold what a run needs: each command is told what it can do about it."""

from pathlib import Path
from typing import Any

import pytest
from desk import experiment

from sia.atomic import read_json, write_json
from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.config import Data, Experiment, resolve
from sia.data.prepared_corpus import MissingCorpus, read_description
from sia.errors import UsageError, UserError
from sia.run.folder import RunFolder
from sia.sweep.corpora import check_fit, provide_corpora


def test_a_missing_corpus_is_to_be_prepared_where_it_was_looked_for(tmp_path: Path) -> None:
    """Not every command has --set."""
    with pytest.raises(MissingCorpus) as caught:
        read_description(tmp_path / "gone", "places205")
    assert f"python jobs/prepare.py --corpus places205 --root DIR --out {tmp_path / 'gone'}" in str(caught.value)
    assert "--set" not in str(caught.value)


def test_a_sweep_may_be_told_where_its_corpus_lies(tmp_path: Path) -> None:
    experiment = Experiment(data=Data(corpus="places205", folder=str(tmp_path / "gone")))
    with pytest.raises(MissingCorpus, match=r"--out .*gone, or say where it lies with --set data\.folder=DIR$"):
        provide_corpora([experiment])


def fit(corpus: Path, **dotted: Any) -> None:
    config = experiment(corpus, **dotted)
    check_fit(RunFolder(corpus / "run"), config, Launch("debug", Profile()))


def test_a_checkpoint_that_is_none_is_refused_with_the_key() -> None:
    with pytest.raises(UsageError, match=r"stages\.2\.start_from: use best, last or epoch=N, not 'nonsense'"):
        resolve({"stages": [{}, {"start_from": "nonsense"}]}, source="mine.yaml")
    resolve({"stages": [{}, *({"start_from": one} for one in ("best", "last", "epoch=12"))]}, source="mine.yaml")


@pytest.mark.parametrize(("wanted", "every"), [("epoch=7", 1), ("epoch=2", 1), ("epoch=5", 0), ("epoch=5", 2)])
def test_an_epoch_that_will_not_be_kept_is_refused_at_submission(corpus: Path, wanted: str, every: int) -> None:
    stages = [{"epochs": 2}, {"epochs": 4}, {"epochs": 1, "start_from": wanted}]
    with pytest.raises(UsageError, match=r"stages\.3\.start_from: epoch . is not kept; .* epochs 3 to 6"):
        fit(corpus, stages=stages, **{"runtime.keep_every_epochs": every})


@pytest.mark.parametrize(("wanted", "every"), [("epoch=6", 0), ("epoch=4", 2), ("epoch=3", 1), ("last", 0), (None, 0)])
def test_an_epoch_that_will_be_kept_is_taken(corpus: Path, wanted: str | None, every: int) -> None:
    stages = [{"epochs": 2}, {"epochs": 4}, {"epochs": 1, "start_from": wanted}]
    fit(corpus, stages=stages, **{"runtime.keep_every_epochs": every})


@pytest.mark.parametrize(
    ("missing", "cure"), [("test", "prepare a corpus"), ("validation", r"set training\.select_on=test, or prepare")]
)
def test_a_split_that_is_missing_is_refused_at_submission(
    corpus: Path, tmp_path: Path, missing: str, cure: str
) -> None:
    description = read_json(corpus / "corpus.json")
    description["num_captions"] = {**description["num_captions"], missing: 0}
    write_json(tmp_path / "corpus.json", description)
    with pytest.raises(UserError, match=rf"no caption of split '{missing}'; .*{cure}"):
        fit(tmp_path)
    if missing == "validation":
        fit(tmp_path, **{"training.select_on": "test"})
