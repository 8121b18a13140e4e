"""What the doctor says of Slurm: programs that answer, refuse or hang, and a real Slurm where it is."""

import socket
from pathlib import Path

import pytest

from sia.cluster.profile import Profile, choose_cluster
from sia.doctor import slurm
from sia.errors import UserError

HOST = socket.gethostname()
NODES = f"""\
NodeName=n1 Arch=x86_64 NodeAddr=127.0.0.1 NodeHostName={HOST} Port=17001
NodeName=far Arch=x86_64 NodeAddr=far.invalid NodeHostName=far.invalid Version=22.05.8
"""


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put these shell scripts, and no other program, onto PATH."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def clustered(*hosts: str) -> slurm.Slurm:
    return slurm.Slurm(True, True, nodes=tuple((host, host) for host in hosts))


def test_without_slurm_it_is_local_only(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch)
    known = slurm.find_slurm()
    found = [slurm.commands(known, Profile()), slurm.submission(known, Profile(), "x"), slurm.accounting(known)]
    assert [(one.level, one.said) for one in found] == [("ok", slurm.LOCAL_ONLY)] * 3
    assert slurm.node_names(known, Profile()).level == slurm.own_name(known, Profile()).level == "ok"


def test_a_slurm_that_does_not_answer_is_a_problem_for_a_profile_that_means_it(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, sinfo="echo 'sinfo: error: no route' >&2; exit 1")
    known = slurm.find_slurm()
    assert slurm.commands(known, Profile()).level == "warning"
    found = slurm.commands(known, Profile(partition="gpu"))
    assert found.level == "problem" and "no route" in found.said and "SLURM_CONF" in found.cure


def test_what_submit_does_without_an_answer_is_told(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, sinfo="echo 'Could not establish a configuration source' >&2; exit 1")
    found = slurm.commands(slurm.find_slurm(), Profile())
    assert (found.level, choose_cluster("auto")) == ("warning", "local")
    assert "until then submit runs jobs on this machine" in found.cure
    programs(tmp_path / "away", monkeypatch, sinfo="echo 'Unable to contact slurm controller' >&2; exit 1")
    found = slurm.commands(slurm.find_slurm(), Profile())
    with pytest.raises(UserError):
        choose_cluster("auto")
    assert found.level == "problem" and "until then submit needs --cluster local" in found.cure


def test_an_sinfo_that_hangs_is_a_cluster_that_is_away(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, sinfo="while :; do :; done")
    monkeypatch.setattr("sia.cluster.profile.SINFO_SECONDS", 0.3)
    assert slurm.commands(slurm.find_slurm(), Profile()).level == "problem"


def test_a_refusal_names_what_to_correct(tmp_path, monkeypatch):
    known, refusal = clustered("n1"), "allocation failure: Invalid account"
    programs(tmp_path / "bin", monkeypatch, sbatch=f"echo '{refusal}' >&2; exit 1")
    found = slurm.submission(known, Profile(), "no profile")
    assert found.said == f"sbatch refuses a job of the cluster's defaults: {refusal}"
    assert found.cure.startswith("give --profile a file that names partition and account")
    found = slurm.submission(known, Profile(account="me"), "a.yaml")
    assert found.said == f"sbatch refuses a job of a.yaml: {refusal}" and "correct a.yaml: partition" in found.cure


def test_slurm_commands_that_are_missing_are_named(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, sinfo="exit 0", scontrol=f"echo '{NODES}'", squeue="exit 0")
    found = slurm.commands(slurm.find_slurm(), Profile())
    assert found.level == "problem" and "sbatch, scancel not found" in found.said


def test_an_sbatch_that_is_too_busy_blames_no_profile(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, sbatch="while :; do :; done")
    monkeypatch.setattr(slurm, "SLURM_SECONDS", 0.3)
    found = slurm.submission(clustered("n1"), Profile(), "a.yaml")
    assert found.level == "warning" and "no answer within 0.3 s" in found.said


def test_accounting_that_is_not_kept_is_fine(tmp_path, monkeypatch):
    programs(tmp_path / "bin", monkeypatch, sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    found = slurm.accounting(clustered("n1"))
    assert found.level == "ok" and "disabled" in found.said and "heartbeats" in found.said


def test_nodes_are_read_off_scontrol():
    assert slurm.nodes_in(NODES) == ((HOST, "127.0.0.1"), ("far.invalid", "far.invalid"))
    assert slurm.Slurm(True, True, nodes=slurm.nodes_in(NODES)).other_hosts == {"far.invalid"}
    assert slurm.nodes_in("") == ()


def test_names_of_nodes_that_do_not_resolve_stop_jobs_of_several_nodes():
    known = clustered("localhost", "far.invalid")
    assert slurm.node_names(known, Profile()).level == "warning"
    found = slurm.node_names(known, Profile(nodes=2))
    assert found.level == "problem" and "1 of 2 names do not resolve: far.invalid" in found.said
    assert slurm.node_names(clustered("localhost"), Profile(nodes=2)).level == "ok"


def test_an_own_name_on_loopback_counts_where_there_are_other_hosts(monkeypatch):
    monkeypatch.setattr(slurm, "addresses", lambda name: ["127.0.1.1"])
    assert slurm.own_name(clustered(HOST, HOST), Profile(nodes=2)).level == "ok"
    found = slurm.own_name(clustered(HOST, "far"), Profile(nodes=2))
    assert found.level == "warning" and "GLOO_SOCKET_IFNAME: eth0" in found.cure
    assert slurm.own_name(clustered("far"), Profile(environment={"GLOO_SOCKET_IFNAME": "ib0"})).level == "ok"
    monkeypatch.setattr(slurm, "addresses", lambda name: ["10.0.0.7", "127.0.1.1"])
    assert slurm.own_name(clustered("far"), Profile(nodes=2)).level == "ok"


@pytest.mark.slurm
def test_a_real_slurm_takes_the_profile_or_says_why_not(monkeypatch):
    monkeypatch.setattr(slurm, "SLURM_SECONDS", 60.0)
    known = slurm.find_slurm()
    assert slurm.commands(known, Profile()).level == "ok"
    assert (taken := slurm.submission(known, Profile(), "a.yaml")).level == "ok", taken
    refused = slurm.submission(known, Profile(partition="nowhere"), "a.yaml")
    assert refused.level == "problem" and "a.yaml" in refused.cure and "partition" in refused.said
    unknown = slurm.submission(known, Profile(sbatch={"foo": 1}), "a.yaml")
    assert (
        unknown.said == "sbatch refuses a job of a.yaml: unrecognized option '--foo=1'" and "`sbatch:`" in unknown.cure
    )
    assert slurm.accounting(known).level == "ok"
