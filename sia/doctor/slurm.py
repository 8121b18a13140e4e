"""Whether Slurm takes jobs from here, and whether its nodes can find each other."""

import ipaddress
import os
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sia.checks import Finding, ask, check, ok, problem, warning
from sia.cluster.profile import Profile, clean_environment, sbatch_script, slurm_trouble
from sia.cluster.slurm_says import cluster_is_away, in_one_line
from sia.errors import one_line

SLURM_SECONDS = 8.0
MOST_NAMES = 64
LOCAL_ONLY = "local only: there is no Slurm here"


@dataclass(frozen=True)
class Slurm:
    """What is known of the cluster: whether its commands are here, whether it answers, its nodes' names."""

    installed: bool
    answers: bool
    said: str = ""
    nodes: tuple[tuple[str, str], ...] = ()  # NodeHostName, NodeAddr

    @property
    def other_hosts(self) -> set[str]:
        """The nodes' hosts besides this one."""
        here = socket.gethostname().partition(".")[0]
        return {host for host, _ in self.nodes if host.partition(".")[0] != here}


def find_slurm() -> Slurm:
    """Ask sinfo, as `submit` does, then scontrol for the nodes."""
    trouble = slurm_trouble()
    if trouble is not None:
        return Slurm(shutil.which("sinfo") is not None, False, one_line(trouble))
    shown = ask(["scontrol", "show", "nodes", "--oneliner"], SLURM_SECONDS).output
    fields: list[dict[str, str]] = [
        dict(re.findall(r"(NodeHostName|NodeAddr)=(\S+)", line)) for line in shown.splitlines()
    ]
    named = [(one["NodeHostName"], one.get("NodeAddr", one["NodeHostName"])) for one in fields if "NodeHostName" in one]
    return Slurm(True, True, nodes=tuple(named))


@check("Slurm")
def commands(slurm: Slurm, profile: Profile) -> Finding:
    if not slurm.installed:
        return ok(LOCAL_ONLY)
    if not slurm.answers:
        return _silent(slurm, profile)
    missing = [name for name in ("sbatch", "scontrol", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        folder = Path(str(shutil.which("sinfo"))).parent
        return problem(f"{', '.join(missing)} not found", f"add the rest of Slurm's commands to PATH, beside {folder}")
    return ok(f"sinfo answers; {len(slurm.nodes)} nodes")


def _silent(slurm: Slurm, profile: Profile) -> Finding:
    said = f"sinfo does not answer: {slurm.said}"
    if cluster_is_away(slurm.said):
        cure = "try again later, or export the SLURM_CONF of one that runs; until then submit needs --cluster local"
        return problem(said, cure)
    meant = profile.partition or profile.account or profile.qos
    cure = "export SLURM_CONF, or log in where sinfo works; until then submit runs jobs on this machine"
    return (problem if meant else warning)(said, cure)


@check("submission")
def submission(slurm: Slurm, profile: Profile, source: str, script: str = "") -> Finding:
    """Whether sbatch would take the very script that a stage of a run is submitted by, or another one, and when that
    would start.
    """
    if not slurm.answers:
        return ok(LOCAL_ONLY if not slurm.installed else "not tried: sinfo does not answer")
    script = script or sbatch_script(profile, "doctor", Path("/tmp/doctor"))
    environment = clean_environment(dict(os.environ), profile, "slurm")
    answer = ask(["sbatch", "--test-only"], SLURM_SECONDS, script, environment)
    if answer.status is None:
        return warning(f"sbatch --test-only: {answer.reason}", "ask again when slurmctld is less busy")
    if not answer.good:
        return _refused(in_one_line(answer.errors), profile, source)
    lines = [line for line in answer.errors.splitlines() if line.startswith("sbatch: ")]
    return ok(lines[-1].removeprefix("sbatch: ") if lines else "sbatch takes a job")


def _refused(said: str, profile: Profile, source: str) -> Finding:
    where = "(`sinfo -s`, `sacctmgr show assoc user=$USER`)"
    if profile == Profile():
        cure = f"give --profile a file that names partition and account {where}"
        return problem(f"sbatch refuses a job of the cluster's defaults: {said}", cure)
    cure = f"correct {source}: partition, account, qos, nodes, GPUs, or what `sbatch:` adds {where}"
    return problem(f"sbatch refuses a job of {source}: {said}", cure)


@check("accounting")
def accounting(slurm: Slurm) -> Finding:
    if not slurm.answers:
        return ok(LOCAL_ONLY if not slurm.installed else "not asked: sinfo does not answer")
    answer = ask(["sacct", "-n", "-X", "-S", "now-1minute"], SLURM_SECONDS)
    if answer.good:
        return ok("sacct answers")
    return ok(f"not kept ({answer.reason}): fine, states come from heartbeats and squeue")


@check("node names")
def node_names(slurm: Slurm, profile: Profile) -> Finding:
    """Ranks of several nodes meet by the name of the first one's host."""
    names = sorted({name for node in slurm.nodes for name in node})
    if not names:
        return ok("no nodes to resolve")
    with ThreadPoolExecutor(16) as pool:
        found = dict(zip(names, pool.map(addresses, names[:MOST_NAMES]), strict=False))
    unknown = [name for name, known in found.items() if not known]
    asked = f"{len(found)} of {len(names)} names" if len(names) > MOST_NAMES else f"{len(names)} names"
    if not unknown:
        return ok(f"{asked} of nodes resolve")
    said = f"{len(unknown)} of {asked} do not resolve: {', '.join(unknown[:4])}"
    cure = "have them put into DNS or /etc/hosts; until then give jobs one node (nodes: 1)"
    return (problem if profile.nodes > 1 else warning)(said, cure)


@check("own name")
def own_name(slurm: Slurm, profile: Profile) -> Finding:
    """Gloo binds the address that the host's own name resolves to: on loopback other nodes do not reach it."""
    name, known = socket.gethostname(), addresses(socket.gethostname())
    if not slurm.other_hosts:
        return ok(f"{name} {'is ' + ', '.join(known) if known else 'does not resolve: fine on one host'}")
    if "GLOO_SOCKET_IFNAME" in profile.environment:
        return ok(f"gloo uses {profile.environment['GLOO_SOCKET_IFNAME']}, as the profile says")
    cure = "name the network in the profile, environment: {GLOO_SOCKET_IFNAME: eth0} (`ip -br addr` lists them)"
    if not known:
        return warning(f"{name} does not resolve", cure)
    if all(ipaddress.ip_address(one).is_loopback for one in known):
        return warning(f"{name} resolves to {', '.join(known)} alone: gloo binds loopback if the nodes do so too", cure)
    return ok(f"{name} is {', '.join(known)}")


def addresses(name: str) -> list[str]:
    """The addresses of a host, without their scopes; none where the name does not resolve."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]).partition("%")[0] for entry in found})
