"""A job goes on with its run's next stages: the same rows and weights as with a job a stage, at one start."""

from pathlib import Path

import pytest
from desk import experiment
from stages import rows, same, saved

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.run.folder import RunFolder, run_of
from sia.run.records import Job, StagePlan
from sia.run.row_files import read_rows
from sia.run.state import State, look
from sia.sweep.chain import follow_run

STAGES = [{"epochs": 1, "schedule": "calr"}, {"epochs": 1, "schedule": "calr", "lr_scale": 0.5}]


def followed(corpus: Path, study: str, profile: Profile) -> RunFolder:
    config = experiment(corpus, stages=STAGES)
    run = run_of(study, config)
    run.create(config)
    heard: list[dict] = []
    follow_run(run, Launch("local", profile), heard.append)
    assert look(run).state == State.FINISHED
    assert len(heard) == len(read_rows(run.metrics))
    return run


def jobs_of(run: RunFolder) -> list[str]:
    """The job of each stage, by its record and by who trained it."""
    recorded = [job.job_id for number in (1, 2) if (job := Job.read(run.stage(number).job)) is not None]
    assert recorded == [row["job_id"] for row in read_rows(run.provenance)]
    return recorded


@pytest.mark.slow
def test_stages_in_one_job_are_those_of_a_job_each(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    together = followed(corpus, "together", Profile(tasks_per_node=2))
    apart = followed(corpus, "apart", Profile(tasks_per_node=2, chain_stages=False))
    assert len(set(jobs_of(together))) == 1
    assert len(set(jobs_of(apart))) == 2
    assert rows(together) == rows(apart)
    assert StagePlan.read(together.stage(2).plan) == StagePlan.read(apart.stage(2).plan)
    ended = [saved(run.stage(2).last)["model"] for run in (together, apart)]
    assert same(*ended)
