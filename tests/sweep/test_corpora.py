"""A corpus that is not there: each command is told what it can do about it."""

from pathlib import Path

import pytest

from sia.config import Data, Experiment
from sia.data.prepared import MissingCorpus, read_description
from sia.sweep.corpora import provide_corpora


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
