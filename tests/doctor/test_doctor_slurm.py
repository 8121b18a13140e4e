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
HANGS = "while :; do :; done"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts these shell scripts, and no other program, onto PATH."""

    def put(**scripts: str) -> None:
        folder = tmp_path / f"bin{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return put


def clustered(*hosts: str) -> slurm.Slurm:
    return slurm.Slurm(True, True, nodes=tuple((host, host) for host in hosts))


def test_without_slurm_it_is_local_only(programs):
    programs()
    known = slurm.find_slurm()
    found = [slurm.commands(known, Profile()), slurm.submission(known, Profile(), "x"), slurm.accounting(known)]
    assert [(one.level, one.said) for one in found] == [("ok", slurm.LOCAL_ONLY)] * 3
    assert slurm.node_names(known, Profile()).level == slurm.own_name(known, Profile()).level == "ok"


@pytest.mark.parametrize(
    ("sinfo", "profile", "level", "cure"),
    [
        ("echo 'no route' >&2; exit 1", Profile(), "warning", "until then submit runs jobs on this machine"),
        ("echo 'no route' >&2; exit 1", Profile(partition="gpu"), "problem", "SLURM_CONF"),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", Profile(), "problem", "needs --cluster local"),
        (HANGS, Profile(), "problem", "needs --cluster local"),
    ],
)
def test_a_slurm_that_does_not_answer_and_what_submit_does_without(programs, monkeypatch, sinfo, profile, level, cure):
    monkeypatch.setattr("sia.cluster.profile.SINFO_SECONDS", 0.3)
    programs(sinfo=sinfo)
    found = slurm.commands(slurm.find_slurm(), profile)
    assert found.level == level and "sinfo does not answer" in found.said and cure in found.cure
    if "needs" in cure:
        with pytest.raises(UserError):
            choose_cluster("auto")
    else:
        assert choose_cluster("auto") == "local"


def test_a_refusal_names_what_to_correct(programs):
    known, refusal = clustered("n1"), "allocation failure: Invalid account"
    programs(sbatch=f"echo '{refusal}' >&2; exit 1")
    found = slurm.submission(known, Profile(), "no profile")
    assert found.said == f"sbatch refuses a job of the cluster's defaults: {refusal}"
    assert found.cure.startswith("give --profile a file that names partition and account")
    found = slurm.submission(known, Profile(account="me"), "a.yaml")
    assert found.said == f"sbatch refuses a job of a.yaml: {refusal}" and "correct a.yaml: partition" in found.cure


def test_commands_that_are_missing_are_named_and_nodes_are_read_off_scontrol(programs):
    programs(sinfo="exit 0", scontrol=f"echo '{NODES}'", squeue="exit 0")
    known = slurm.find_slurm()
    assert known.nodes == ((HOST, "127.0.0.1"), ("far.invalid", "far.invalid"))
    assert known.other_hosts == {"far.invalid"}
    found = slurm.commands(known, Profile())
    assert found.level == "problem" and "sbatch, scancel not found" in found.said


def test_an_sbatch_that_is_too_busy_blames_no_profile(programs, monkeypatch):
    programs(sbatch=HANGS)
    monkeypatch.setattr(slurm, "SLURM_SECONDS", 0.3)
    found = slurm.submission(clustered("n1"), Profile(), "a.yaml")
    assert found.level == "warning" and "no answer within 0.3 s" in found.said


def test_accounting_that_is_not_kept_is_fine(programs):
    programs(sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    found = slurm.accounting(clustered("n1"))
    assert found.level == "ok" and "disabled" in found.said and "heartbeats" in found.said


def test_names_of_nodes_that_do_not_resolve_stop_jobs_of_several_nodes():
    known = clustered("localhost", "far.invalid")
    assert slurm.node_names(known, Profile()).level == "warning"
    found = slurm.node_names(known, Profile(nodes=2))
    assert found.level == "problem" and "1 of 2 names do not resolve: far.invalid" in found.said
    assert slurm.node_names(clustered("localhost"), Profile(nodes=2)).level == "ok"


@pytest.mark.parametrize(
    ("hosts", "addresses", "environment", "level"),
    [
        ((HOST,), ["127.0.1.1"], {}, "ok"),
        ((HOST, "far"), ["127.0.1.1"], {}, "warning"),
        ((HOST, "far"), [], {}, "warning"),
        (("far",), ["127.0.1.1"], {"GLOO_SOCKET_IFNAME": "ib0"}, "ok"),
        (("far",), ["10.0.0.7", "127.0.1.1"], {}, "ok"),
    ],
)
def test_an_own_name_on_loopback_counts_where_there_are_other_hosts(monkeypatch, hosts, addresses, environment, level):
    monkeypatch.setattr(slurm, "addresses", lambda name: addresses)
    found = slurm.own_name(clustered(*hosts), Profile(nodes=2, environment=environment))
    assert found.level == level and (level == "ok" or "GLOO_SOCKET_IFNAME: eth0" in found.cure)


@pytest.mark.slurm
def test_a_real_slurm_takes_the_profile_or_says_why_not(monkeypatch):
    monkeypatch.setattr(slurm, "SLURM_SECONDS", 60.0)
    known = slurm.find_slurm()
    assert slurm.commands(known, Profile()).level == slurm.accounting(known).level == "ok"
    assert (taken := slurm.submission(known, Profile(), "a.yaml")).level == "ok", taken
    refused = slurm.submission(known, Profile(partition="nowhere"), "a.yaml")
    assert refused.level == "problem" and "a.yaml" in refused.cure and "partition" in refused.said
    unknown = slurm.submission(known, Profile(sbatch={"foo": 1}), "a.yaml")
    assert unknown.said == "sbatch refuses a job of a.yaml: unrecognized option '--foo=1'"
    assert "`sbatch:`" in unknown.cure
