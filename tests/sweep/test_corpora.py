"""A corpus that is not there: each command is told what it can do about it."""

from pathlib import Path

import pytest
import stages

from sia.cluster.profile import Profile
from sia.config import Data, Experiment
from sia.data.prepared import MissingCorpus, read_description
from sia.errors import UserError
from sia.run_folder import RunFolder
from sia.sweep.corpora import check_fit, provide_corpora
from sia.sweep.launch import Launch


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


def test_chunks_that_not_every_rank_has_a_part_of_are_refused_at_submission(corpus: Path) -> None:
    experiment = stages.experiment(corpus, **{"training.chunk_size": 3})
    with pytest.raises(UserError, match=r"training\.chunk_size 3 is less than the 4 ranks that share it; raise it"):
        check_fit(RunFolder(corpus / "run"), experiment, Launch("local", Profile(tasks_per_node=4)))
