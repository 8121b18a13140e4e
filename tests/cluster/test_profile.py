"""Cluster profiles: what they may say, what sbatch is then asked for, and which cluster is taken."""

import re
import shutil
import subprocess
import sys

import pytest
from desk import REPOSITORY
from written_runs import begin_run, experiment

from sia.atomic import write_json
from sia.cluster.launch import (
    Launch,
    choose_launch,
    choose_launches,
    default_concurrency,
    former_launch,
    local_profile,
    record_launch,
)
from sia.cluster.profile import Profile, check_local, choose_cluster, load_profile, sbatch_script, visible_gpus
from sia.errors import UsageError, UserError


@pytest.fixture
def without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("sinfo") is None


def write(tmp_path, text):
    path = tmp_path / "gpu.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpus: 4", "unknown key 'gpus'; the nearest valid one is 'gpus_per_node'"),
        ("nodes: 0", "nodes: "),
        ("timeout_min: soon", "timeout_min: "),
        ("environment: {A: [1]}", "environment.A: "),
        ("environment: {A: true}", "environment.A: a variable is text; write it in quotes"),
        ("sbatch: {nodes: 2}", "sbatch.nodes: use nodes instead"),
        ("sbatch: {ntasks_per_node: 2}", "sbatch.ntasks_per_node: use tasks_per_node instead"),
        ("sbatch: {mem: 4G}", "sbatch.mem: use mem_gb instead"),
        ("sbatch: {time: 10}", "sbatch.time: use timeout_min instead"),
        ("sbatch: {no-requeue: true}", "sbatch.no-requeue: use requeue: false instead"),
        ("sbatch: {job-name: a}", "sbatch.job-name: jobs of sia do not work with it; leave it out"),
        ("sbatch: {hold: }", "sbatch.hold: give it one value"),
        ("sbatch: {exclude: [n1, n2]}", "sbatch.exclude: give it one value"),
        ("nodes: 1\nnodes: 2", "'nodes' is given twice"),
        ("- nodes", "expected 'key: value' lines"),
    ],
)
def test_a_wrong_profile_names_file_and_key(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_profile_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        load_profile(tmp_path)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "slurm").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_repositorys_profiles_load(path):
    profile = load_profile(path)
    assert profile.world_size * profile.runs_per_node == profile.nodes * profile.tasks_per_node


def test_sbatch_is_asked_for_what_the_profile_says(tmp_path):
    text = """
partition: gpu
nodes: 2
tasks_per_node: 4
gpus_per_node: 4
cpus_per_task: 8
mem_gb: 1.5
timeout_min: 60
setup: [module load cuda]
environment: {A: 1, B: 0.5, C: eth0}
sbatch: {exclusive: true, requeue: false}
"""
    profile = load_profile(write(tmp_path, text))
    assert profile.environment == {"A": "1", "B": "0.5", "C": "eth0"}
    asked = profile.slurm_parameters("size/run/1")
    assert asked["signal_delay_s"] == 120
    assert asked["job_name"] == "size/run/1"
    assert (asked["nodes"], asked["ntasks_per_node"], asked["cpus_per_task"]) == (2, 4, 8)
    assert (asked["gpus_per_node"], asked["mem"], asked["time"], asked["partition"]) == (4, "1536MB", 60, "gpu")
    assert asked["setup"] == ["module load cuda"]
    assert asked["additional_parameters"] == {"no-requeue": True, "exclusive": True}
    assert "--kill-on-bad-exit=1" in asked["srun_args"]


def test_sbatchs_other_flags_are_passed_on_and_false_leaves_one_out(tmp_path):
    text = "sbatch: {exclusive: false, mail-type: END, wckey: a, dependency: afterok:7, nice: 0}\n"
    lines = sbatch_script(load_profile(write(tmp_path, text)), "size/run/1", tmp_path).splitlines()
    flags = {f"#SBATCH --{flag}" for flag in ("mail-type=END", "wckey=a", "dependency=afterok:7", "nice=0", "requeue")}
    assert flags <= set(lines) and not any("exclusive" in line or "False" in line for line in lines)


@pytest.mark.parametrize(
    ("container", "between"),
    [
        ("apptainer", ["apptainer", "exec", "--nv", "--bind", "/shared", "/shared/sia.sif"]),
        ("container-image", ["--container-image=/shared/sia.sqsh", "--container-mounts=/shared:/shared"]),
    ],
)
def test_the_guides_function_puts_a_container_between_srun_and_the_interpreter(tmp_path, container, between):
    """By the words of the real script, with an srun that prints its own."""
    guide = (REPOSITORY / "slurm/README.md").read_text()
    (example,) = (body for body in re.findall(r"^```yaml\n(.*?)^```", guide, re.M | re.S) if container in body)
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    script = sbatch_script(load_profile(write(tmp_path, example)), "name", tmp_path)
    assert " python -u -m " in script
    script = script.replace(" python -u -m ", f" {sys.executable} -u -c 'print(1); print(2)' ")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    start = words.index(sys.executable)
    assert words[start : start + 4] == [sys.executable, "-u", "-c", "print(1); print(2)"]
    placed = words[start - len(between) : start] if container == "apptainer" else words[: len(between)]
    assert placed == between and "--unbuffered" in words[:start]


@pytest.mark.slurm
def test_a_job_that_may_not_be_requeued_is_taken_as_such(tmp_path):
    """Also where Slurm's own default is to requeue."""
    script = sbatch_script(Profile(sbatch={"requeue": False, "hold": True}), "held", tmp_path)
    answer = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=True)
    job = answer.stdout.strip()
    try:
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run(["scancel", job], check=True)
    assert "Requeue=0" in shown


def test_what_the_profile_leaves_out_is_left_to_the_cluster():
    asked = Profile(timeout_min=2).slurm_parameters("name")
    assert asked["signal_delay_s"] <= 60, "the time to save fits into a short job"
    assert Profile(mem_gb=0).slurm_parameters("name")["mem"] == "0MB", "all of a node's"
    assert not {"partition", "account", "qos", "constraint", "mem", "gpus_per_node"} & asked.keys()
    assert asked["additional_parameters"] == {"requeue": True}


def test_slurm_without_sinfo_is_refused_and_auto_takes_the_machine(without_slurm):
    with pytest.raises(
        UserError, match=r"--cluster slurm: Slurm does not answer \(sinfo is not installed\).*--cluster local"
    ):
        choose_cluster("slurm")
    with pytest.raises(UserError, match="or use --cluster here"):
        choose_cluster("slurm", instead="here")
    assert choose_cluster("auto") == "local"
    assert choose_cluster("debug") == "debug"


def test_a_local_job_has_one_node_and_the_gpus_that_the_user_may_take(monkeypatch):
    with pytest.raises(UsageError, match="mine: nodes is 2"):
        check_local(Profile(nodes=2), "mine")
    check_local(Profile(tasks_per_node=2), "mine")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == [2, 3]
    assert local_profile().gpus_per_node == local_profile().tasks_per_node == 2
    with pytest.raises(UsageError, match="this machine has 2"):
        check_local(Profile(gpus_per_node=4), "gpu.yaml")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.parametrize("gpus", ["", "0,1"])
def test_a_machine_trains_as_many_runs_side_by_side_as_it_has_ranks(monkeypatch, gpus):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    many, one = dict.fromkeys("abc"), dict.fromkeys("a")
    together = choose_launches(many, "local", None)["a"]
    assert (together.profile.runs_per_node, together.profile.world_size) == (2, 1)
    assert default_concurrency(together) == 3, "two train, one waits for a place"
    for alone in (choose_launches(one, "local", None), choose_launches(many, "local", None, max_concurrent=1)):
        assert (alone["a"].profile.runs_per_node, alone["a"].profile.world_size) == (1, 2)
        assert default_concurrency(alone["a"]) == 1


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        ("GPU-8932f937-d72c,GPU-91aa2f00", ["GPU-8932f937-d72c", "GPU-91aa2f00"]),
        ("1, GPU-91aa2f00", [1, "GPU-91aa2f00"]),
        ("MIG-c6d4f1ef-42e4", ["MIG-c6d4f1ef-42e4"]),
        ("MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0", ["MIG-GPU-8932f937/1/0"]),
        ("0,-1,1", [0]),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_gpus_may_be_named_in_every_way_that_cuda_knows(monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus
    assert local_profile().gpus_per_node == len(gpus)
    check_local(Profile(gpus_per_node=len(gpus)), "gpu.yaml")


def test_a_run_goes_on_with_the_resources_that_it_was_asked_for_with(tmp_path, without_slurm):
    """Also where the cluster took no job."""
    run = begin_run(tmp_path / "runs", "size", experiment())
    former = Profile(tasks_per_node=4, cpus_per_task=3)
    write_json(run.launch, {"cluster": "local", "profile": former.model_dump(mode="json")})
    assert former_launch(run, "auto", None).profile == former
    assert former_launch(run, "debug", None).profile == Profile()


def test_a_profiles_variables_are_kept_for_the_next_job_in_a_file_of_its_owner_alone(tmp_path, without_slurm):
    run = begin_run(tmp_path / "runs", "size", experiment())
    keys = Profile(environment={"API_KEY": "hunter2"})
    record_launch(run, Launch("local", keys))
    assert former_launch(run, "auto", None).profile == keys
    assert [
        path
        for path in run.path.iterdir()
        if path.is_file() and "hunter2" in path.read_text() and path.stat().st_mode & 0o077
    ] == []
    record_launch(run, Launch("local", Profile()))
    assert former_launch(run, "auto", None).profile == Profile()


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """Puts an sinfo into PATH that does this."""

    def does(script: str) -> None:
        fake = tmp_path / "sinfo"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return does


def test_commands_without_a_cluster_are_no_slurm(sinfo):
    sinfo("echo 'sinfo: fatal: Could not establish a configuration source' >&2; exit 1")
    assert choose_cluster("auto") == "local"
    with pytest.raises(UserError, match="Could not establish a configuration source"):
        choose_cluster("slurm")


@pytest.mark.parametrize(
    "script",
    [
        "echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2; exit 1",
        "echo 'slurm_load_partitions: Protocol authentication error' >&2; exit 1",
        "exec sleep 60",
    ],
)
def test_a_busy_controller_does_not_make_a_login_node_train(sinfo, monkeypatch, script):
    monkeypatch.setattr("sia.cluster.profile.SINFO_SECONDS", 0.5)
    sinfo(script)
    with pytest.raises(UserError, match=r"--cluster auto: Slurm does not answer \(.*or use --cluster local"):
        choose_cluster("auto")
    assert choose_cluster("local") == "local"


def test_a_detached_driver_waits_for_a_controller_that_is_away(sinfo, monkeypatch, tmp_path, capsys):
    """Nobody would start it again; a command of a person is told at once."""
    monkeypatch.setattr("sia.cluster.profile.ASK_AGAIN_SECONDS", 0.1)
    away = "echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    sinfo(f"echo asked >> {tmp_path}/asked\n[ $(wc -l < {tmp_path}/asked) -gt 3 ] || {{ {away}; }}")
    monkeypatch.setenv("SIA_DRIVER_JOB", "17")
    assert choose_cluster("slurm") == "slurm"
    assert capsys.readouterr().err.count("waiting for Slurm") == 3
    monkeypatch.setattr("sia.cluster.profile.PATIENCE_SECONDS", 0.3)
    sinfo(away)
    with pytest.raises(UserError, match="Unable to contact"):
        choose_cluster("slurm")


@pytest.mark.slurm
def test_auto_takes_a_slurm_that_answers():
    assert choose_cluster("auto") == choose_cluster("slurm") == "slurm"
    launch = choose_launch("auto", None, REPOSITORY / "slurm" / "devcluster.yaml")
    assert (launch.cluster, launch.profile.partition) == ("slurm", "dev")
    assert default_concurrency(launch) > 1


def test_a_profile_given_by_hand_is_taken_on_one_machine_and_the_grids_is_not(tmp_path, without_slurm):
    given = write(tmp_path, "tasks_per_node: 3\n")
    assert choose_launch("local", given, None).profile.tasks_per_node == 3
    assert choose_launch("local", None, REPOSITORY / "slurm" / "gpu.yaml").profile.gpus_per_node != 8
    assert default_concurrency(choose_launch("local", given, None)) == 1
    with pytest.raises(UsageError, match="nodes is 2"):
        choose_launch("local", write(tmp_path, "nodes: 2\n"), None)
    assert choose_launch("debug", None, None).profile.world_size == 1
