"""Where a run's files lie, and how a run is found again."""

import os
from pathlib import Path

import pytest
from written_runs import begin_run, experiment, plan_stage

from sia.config import Stage, load_experiment
from sia.errors import UserError
from sia.gate import own_folder
from sia.run.folder import File, RunFolder, StageFolder, find_run, find_runs, is_study, run_of, runs_of, studies


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIA_RUNS", raising=False)
    return tmp_path / "runs"


def test_a_run_lies_in_the_working_folder_or_where_the_environment_says(root, tmp_path, monkeypatch):
    config = experiment()
    run = run_of("size", config)
    assert run.path == root / "size" / f"DG2A64-{config.signature}"
    assert (run.study, run.name, run.stage(2).number) == ("size", config.run_name, 2)
    monkeypatch.setenv("SIA_RUNS", "elsewhere")
    assert run_of("size", config).path == tmp_path / "elsewhere" / "size" / run.name


def test_no_two_files_of_a_run_are_one():
    run = RunFolder(Path("/runs/size/DG2A64"))
    files = [getattr(run, name) for name, kind in vars(RunFolder).items() if isinstance(kind, File)]
    for stage in (run.stage(1), run.stage(2)):
        files += [getattr(stage, name) for name, kind in vars(StageFolder).items() if isinstance(kind, File)]
        files += [stage.weights_of_epoch(7), stage.weights_of_epoch(70)]
    assert len(set(files)) == len(files) > 25 and all(path.is_relative_to(run.path) for path in files)


def test_create_writes_the_experiment_once(root):
    config = experiment()
    run = run_of("size", config)
    run.create(config)
    assert run.experiment() == config
    written = run.config.read_text()
    run.config.write_text(written + "# mine\n")
    run.create(config)
    assert run.config.read_text() == written + "# mine\n"
    run.create(experiment(**{"training.recompute": True}))
    assert run.experiment().training.recompute, "as asked: the run is the same"
    assert run.jobs.stat().st_mode & 0o022 == 0, "submitit executes the pickles in it"


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o755), (0o022, 0o755), (0o027, 0o750), (0o077, 0o700)])
def test_the_users_umask_says_who_may_read(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        own_folder(tmp_path / "run" / "jobs")
    finally:
        os.umask(before)
    assert (tmp_path / "run" / "jobs").stat().st_mode & 0o777 == mode


def test_stages_added_by_hand_follow_the_experiments_own(root):
    run = begin_run(root, "size", experiment())
    assert [stage.epochs for stage in run.planned_stages()] == [3, 2]
    plan_stage(run, 3, Stage(epochs=9), 5, 4)
    assert [stage.epochs for stage in run.planned_stages()] == [3, 2, 9]


def test_an_experiment_is_read_again_once_its_file_has_changed(root):
    run = begin_run(root, "size", experiment())
    assert run.experiment() is run.experiment()
    run.config.write_text(run.config.read_text().replace("num_workers: 2", "num_workers: 10"))
    assert run.experiment().runtime.num_workers == 10
    run.config.write_text(run.config.read_text().replace("num_workers: 10", "num_workers: 10\n  num_workers: 11"))
    with pytest.raises(UserError, match=r"config\.yaml.*'num_workers' is given twice"):
        run.experiment()
    run.config.unlink()
    with pytest.raises(UserError, match=r"no run there.*jobs/status.py"):
        run.experiment()


def test_a_configuration_read_by_its_sections_is_the_one_that_is_read_as_a_whole(root):
    chosen = experiment(**{"loss": "hinge", "data.folder": "a: 'b'\nruntime: {}", "optimizer.gradient_clip": 1.0})
    run = begin_run(root, "size", chosen)
    assert run.experiment() == load_experiment(run.config) == chosen
    run.config.write_text("# by hand\n" + run.config.read_text())
    assert run.experiment() == chosen
    run.config.write_text(run.config.read_text() + "optimizer: {}\n")
    with pytest.raises(UserError, match=r"config\.yaml.*'optimizer' is given twice"):
        run.experiment()


def test_studies_and_their_runs_are_listed_by_name(root):
    assert studies() == [] and runs_of("size") == [] and runs_of() == []
    made = [begin_run(root, study, experiment(**{"training.seed": 1})) for study in ("depth", "size")]
    (root / "size" / "driver.lock").write_text("{}")
    (root / "size" / "half").mkdir()
    (root / "new").mkdir()
    assert studies() == ["depth", "size"] and runs_of() == made
    assert find_runs("size") == runs_of("size") == find_runs(f"size/{made[1].name}") == [made[1]]
    assert is_study("size") and not any(map(is_study, ("new", "*", made[1].name, f"size/{made[1].name}", "..")))
    (root / "new" / "driver.json").write_text("{}")
    assert is_study("new") and find_runs("new") == []


def test_a_run_is_found_by_path_by_study_by_name_and_by_a_part_that_no_other_has(root):
    one, other = (begin_run(root, "size", experiment(**{"training.seed": seed})) for seed in (0, 1))
    for name in (one.path, f"runs/size/{one.name}", f"size/{one.name}", one.name, one.name[:-3], one.name[7:13]):
        assert find_run(str(name)) == one
    longer = RunFolder(one.path.with_name(f"{one.name}-copy"))
    longer.create(experiment())
    assert find_run(one.name) == one, "a whole name goes before the beginning of another"
    assert find_run(f"{one.name}-") == longer
    with pytest.raises(UserError, match="3 runs have that name") as ambiguous:
        find_run("DG2A64")
    assert all(f"size/{run.name}" in str(ambiguous.value) for run in (one, other, longer))
    begin_run(root, "depth", experiment())
    with pytest.raises(UserError, match="2 runs have that name"):
        find_run(one.name)
    assert find_run(f"depth/{one.name}").study == "depth"
    begin_run(root, "width.rehearsal", experiment(**{"model.gru_layers": 4}))
    assert find_run("DG4").study == "width.rehearsal"
    trained = begin_run(root, "width", experiment(**{"model.gru_layers": 4}))
    assert find_run("DG4") == find_run(trained.name) == trained, "a rehearsal has the same pairs"
    with pytest.raises(UserError, match=r"^DG9A9-none: no such run under .*jobs/status.py"):
        find_run("DG9A9-none")
