"""Handing a task to a cluster: the job's environment, and a cluster that does not take it."""

import os

import pytest
from desk import wait_until

from sia.atomic import read_json
from sia.cluster.profile import Profile, clean_environment
from sia.cluster.stage_job import TrainStage
from sia.cluster.submit import submit
from sia.errors import UserError
from sia.run.queue import is_in_queue
from sia.run.records import Job

OURS = {"PATH": "/usr/bin", "HOME": "/root", "SLURM_CONF": "/etc/slurm.conf", "MLFLOW_TRACKING_URI": "sqlite:///a"}
FOREIGN = {
    **{"RAY_ADDRESS": "1", "RAY_JOB_ID": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "OMP_NUM_THREADS": "1"},
    **{"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_MEM_PER_NODE": "9", "SBATCH_ACCOUNT": "x", "SRUN_DEBUG": "3"},
    **{"SUBMITIT_EXECUTOR": "slurm", "PMI_RANK": "0", "PMIX_RANK": "0", "MASTER_ADDR": "n1", "MASTER_PORT": "1"},
    **{"MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMEXPR_NUM_THREADS": "1"},
    **{"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"},
    **{"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "ROLE_RANK": "1", "ROLE_WORLD_SIZE": "2", "ROLE_NAME": "default"},
}
DEVICES = {"CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"}


@pytest.fixture
def task(tmp_path):
    return TrainStage(str(tmp_path / "runs" / "size" / "DG1A8-0123456789"), 1, threads=1)


def test_a_job_keeps_the_users_variables_and_none_of_the_submitting_process():
    assert clean_environment({**OURS, **FOREIGN}, Profile(cpus_per_task=3)) == {**OURS, "OMP_NUM_THREADS": "3"}
    given = {"OMP_NUM_THREADS": "9", "NCCL_DEBUG": "INFO", "PATH": "/opt/bin"}
    assert clean_environment({**OURS, **FOREIGN}, Profile(environment=given)) == {**OURS, **given}


def test_devices_are_the_users_choice_on_one_machine_and_the_nodes_own_on_slurm():
    profile = Profile(environment={"HIP_VISIBLE_DEVICES": "3"})
    chosen = {**DEVICES, "RANKING": "kept", "WORLD": "kept"}
    kept = {"OMP_NUM_THREADS": "1", "RANKING": "kept", "WORLD": "kept"}
    assert clean_environment(chosen, Profile(), "local") == {**kept, **DEVICES}
    assert clean_environment(chosen, profile, "slurm") == {**kept, "HIP_VISIBLE_DEVICES": "3"}


def test_a_cluster_that_does_not_take_the_job_is_told_in_one_line(task, tmp_path, monkeypatch):
    refusing = tmp_path / "bin" / "sbatch"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
    refusing.chmod(0o755)
    (tmp_path / "bin" / "srun").symlink_to(refusing)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError) as caught:
        submit(task, "slurm", Profile(partition="gpu"))
    assert "\n" not in str(caught.value)
    assert "did not take size/DG1A8-0123456789/1" in str(caught.value)
    assert "invalid partition" in str(caught.value) and str(task.jobs / "submit.log") in str(caught.value)
    assert not task.job_record.exists()


@pytest.mark.slurm
def test_a_flag_that_the_real_sbatch_does_not_know_is_told(task):
    with pytest.raises(UserError, match=r"did not take .*: unrecognized option '--foo=1' \(see .*submit\.log\)"):
        submit(task, "slurm", Profile(sbatch={"foo": 1}))


def test_a_submitted_job_is_written_down_before_submit_returns_and_leads_its_own_session(task, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    submit(task, "local", Profile())
    job = Job.read(task.job_record)
    assert job.cluster == "local" and job.folder == str(task.jobs)
    assert is_in_queue(job) and os.getsid(int(job.job_id)) != os.getsid(0)
    # There is no such run: the job ends by itself, and says why where the driver looks.
    wait_until(lambda: not is_in_queue(job), 60, "the job's end")
    failure = read_json(task.run.stage(1).failed)
    assert "no run there" in failure["error"] and failure["job_id"] == job.job_id


def test_a_profiles_variables_are_in_no_file_and_no_command_line_that_others_read(task, monkeypatch, tmp_path):
    """They are passwords, now and then; the job has them."""
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    seen = tmp_path / "seen"
    watch = f"tr '\\0' ' ' < /proc/$PPID/cmdline > {seen}; cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' ' >> {seen}"
    profile = Profile(environment={"API_KEY": "hunter2"}, setup=[watch, f"printenv API_KEY > {tmp_path}/key"])
    submit(task, "local", profile)
    wait_until(lambda: not is_in_queue(Job.read(task.job_record)), 60, "the job's end")
    assert (tmp_path / "key").read_text() == "hunter2\n"
    assert "python" in seen.read_text() and "hunter2" not in seen.read_text()
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert task.job_record in files
    assert [path for path in files if b"hunter2" in path.read_bytes() and path.stat().st_mode & 0o077] == []
    assert read_json(task.job_record)["profile"]["cpus_per_task"] == 1


def test_folders_that_others_can_write_are_refused_with_the_cure(task, monkeypatch, tmp_path):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    task.jobs.mkdir(parents=True)
    task.jobs.parents[1].chmod(0o775)
    with pytest.raises(UserError, match=f"^{task.jobs.parents[1]} can be written by others.*; chmod -R go-w"):
        submit(task, "local", Profile())
    assert list(task.jobs.iterdir()) == []


@pytest.mark.slurm
def test_slurm_starts_a_job_through_the_gate(task, monkeypatch, tmp_path):
    """Its pickle is the owner's alone, and its log is still read by others."""
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    before = os.umask(0o002)
    try:
        submit(task, "slurm", Profile(timeout_min=2, environment={"API_KEY": "hunter2"}))
    finally:
        os.umask(before)
    wait_until(task.run.stage(1).failed.exists, 60, "the job's word")
    assert "no run there" in read_json(task.run.stage(1).failed)["error"]
    made = [path for path in (tmp_path / "runs").rglob("*") if not path.is_symlink()]
    assert [path for path in made if path.stat().st_mode & 0o022] == []
    assert [path for path in task.jobs.glob("*_log.err") if path.stat().st_mode & 0o044]
    assert [path for path in made if path.is_file() and b"hunter2" in path.read_bytes()] == []


def test_a_local_job_gets_gpus_that_are_named_by_their_uuids(task, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,GPU-91aa2f00")
    seen = tmp_path / "seen"
    submit(task, "local", Profile(gpus_per_node=1, setup=[f"echo $CUDA_VISIBLE_DEVICES > {seen}", "exit 0"]))
    wait_until(lambda: seen.exists() and seen.read_text(), 30, "the job's first line")
    assert seen.read_text() == "GPU-8932f937\n"
