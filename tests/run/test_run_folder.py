"""Where a run's files lie, and how a run is found again."""

import os
from pathlib import Path

import pytest
from written_runs import begin_run, experiment, finish_run, plan_stage

from sia.config import Stage
from sia.errors import UserError
from sia.gate import own_folder
from sia.run.folder import (
    RunFolder,
    Runs,
    find_run,
    find_runs,
    is_study,
    run_of,
    runs_of,
    runs_root,
    studies,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIA_RUNS", raising=False)
    return tmp_path / "runs"


def test_runs_lie_in_the_working_folder_or_where_the_environment_says(root, tmp_path, monkeypatch):
    assert runs_root() == root
    monkeypatch.setenv("SIA_RUNS", "elsewhere")
    assert runs_root() == tmp_path / "elsewhere"
    assert runs_root().is_absolute()


def test_a_run_is_named_by_study_pair_and_signature(root):
    config = experiment()
    run = run_of("size", config)
    assert run.path == root / "size" / f"DG2A64-{config.signature}"
    assert (run.study, run.name) == ("size", config.run_name)


def test_all_files_of_a_run_lie_in_its_folder():
    run = RunFolder(run_of("size", experiment()).path)
    stage = run.stage(2)
    files = [run.config, run.corpus, run.metrics, run.lock, run.finished, run.stopped, run.provenance, run.jobs]
    files += [stage.plan, stage.job, stage.done, stage.failed, stage.rendezvous, stage.best, stage.last]
    files += [stage.weights_of_epoch(7), stage.weights_of_epoch(70)]
    assert all(path.is_relative_to(run.path) for path in files)
    assert len(set(files)) == len(files)
    assert stage.number == 2


def test_create_writes_the_experiment_once(root):
    config = experiment()
    run = run_of("size", config)
    run.create(config)
    assert run.experiment() == config
    written = run.config.read_text()
    run.config.write_text(written + "# mine\n")
    run.create(config)
    assert run.config.read_text() == written + "# mine\n"


def test_nobody_else_may_write_where_submitits_pickles_lie(root):
    run = run_of("size", experiment())
    run.create(experiment())
    assert run.jobs.stat().st_mode & 0o022 == 0, "submitit executes the pickles in it"


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o755), (0o022, 0o755), (0o027, 0o750), (0o077, 0o700)])
def test_the_users_umask_says_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        own_folder(tmp_path / "run" / "jobs")
    finally:
        os.umask(before)
    assert (tmp_path / "run" / "jobs").stat().st_mode & 0o777 == mode


def test_a_folder_without_a_run_says_so(root):
    with pytest.raises(UserError, match=r"no run there.*jobs/status.py"):
        RunFolder(root / "size" / "none").experiment()


def test_stages_added_by_hand_follow_the_experiments_own(root):
    run = begin_run(root, "size", experiment())
    assert [stage.epochs for stage in run.planned_stages()] == [3, 2]
    plan_stage(run, 3, Stage(epochs=9), 5, 4)
    assert [stage.epochs for stage in run.planned_stages()] == [3, 2, 9]


def test_studies_and_their_runs_are_listed_by_name(root):
    assert studies() == [] and runs_of("size") == []
    for study in ("size", "depth"):
        for seed in (0, 1):
            begin_run(root, study, experiment(**{"training.seed": seed}))
    (root / "size" / "driver.lock").write_text("{}")
    (root / "size" / "half").mkdir()
    assert studies() == ["depth", "size"]
    assert len(runs_of("size")) == 2
    assert [run.path for run in runs_of("size")] == sorted(run.path for run in runs_of("size"))


def test_a_run_is_found_by_path_by_study_and_by_name(root):
    run = finish_run(root, "size", experiment())
    for name in (str(run.path), f"runs/size/{run.name}", f"size/{run.name}", run.name):
        assert find_run(name) == run


def test_a_name_that_two_studies_use_must_be_told_apart(root):
    for study in ("size", "depth"):
        begin_run(root, study, experiment())
    with pytest.raises(UserError, match="2 runs have that name"):
        find_run(experiment().run_name)
    assert find_run(f"depth/{experiment().run_name}").study == "depth"


def test_an_unknown_run_is_named_with_the_cure(root):
    with pytest.raises(UserError, match=r"^DG9A9-none: no such run under .*jobs/status.py"):
        find_run("DG9A9-none")


def test_a_part_of_a_name_that_no_other_run_has_is_enough(root):
    one, other = (begin_run(root, "size", experiment(**{"training.seed": seed})) for seed in (0, 1))
    for part in (one.name[:-3], one.name.partition("-")[2][:6], f"size/{one.name[:-3]}"):
        assert find_run(part) == one
    with pytest.raises(UserError, match="2 runs have that name") as ambiguous:
        find_run("DG2A64")
    assert f"size/{one.name}" in str(ambiguous.value) and f"size/{other.name}" in str(ambiguous.value)


def test_a_whole_name_goes_before_the_beginning_of_another(root):
    run = begin_run(root, "size", experiment())
    longer = RunFolder(run.path.with_name(f"{run.name}-copy"))
    longer.create(experiment())
    assert find_run(run.name) == run
    assert find_run(f"{run.name}-") == longer


def test_a_study_is_told_from_a_run(root):
    run = begin_run(root, "size", experiment())
    (root / "new").mkdir()
    assert is_study("size") and not any(map(is_study, ("new", run.name, f"size/{run.name}", "..", "none")))
    (root / "new" / "driver.json").write_text("{}")
    assert is_study("new") and find_runs("new") == []
    assert find_runs("size") == find_runs(run.name) == [run]


def test_an_experiment_is_read_again_once_its_file_has_changed(root):
    run = begin_run(root, "size", experiment())
    assert run.experiment() is run.experiment()
    run.config.write_text(run.config.read_text().replace("num_workers: 2", "num_workers: 10"))
    assert run.experiment().runtime.num_workers == 10
    run.config.write_text(run.config.read_text().replace("num_workers: 10", "num_workers: 10\n  num_workers: 11"))
    with pytest.raises(UserError, match=r"config\.yaml.*'num_workers' is given twice"):
        run.experiment()


def test_runs_are_found_under_another_root_than_the_environments(tmp_path, root):
    run = finish_run(tmp_path / "elsewhere", "size", experiment())
    there = Runs(tmp_path / "elsewhere")
    assert there.all() == there.of("size") == [run] == [there.find(run.name[:4])]
    assert there.studies() == ["size"] and there.has_study("size") and not there.has_study("../elsewhere/size")
    assert not is_study("size") and studies() == []
