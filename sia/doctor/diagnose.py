"""All checks, in the order in which a person reads them; the slow ones run beside each other."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from sia.checks import Finding
from sia.cluster.profile import Profile
from sia.doctor import devices, files, machine, slurm
from sia.trackers.tracker import Tracker

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Patient:
    """What is examined: a profile and where it was read, the runs folder, the tracker and its store."""

    profile: Profile
    profile_source: str
    runs: Path
    tracker: Tracker


def diagnose(patient: Patient) -> list[Finding]:
    """A finding a check; none raises, none needs a GPU or Slurm, and nothing is left behind."""
    with ThreadPoolExecutor(4) as pool:
        probed = pool.submit(devices.probe_torch)
        tracker = pool.submit(patient.tracker.findings)
        cluster = pool.submit(_cluster, patient)
        quick = _folder(patient.runs)
        found, other_hosts = cluster.result()
        shared = files.shared(patient.runs, other_hosts)
        return [*found, *quick, shared, *tracker.result(), *_machine(), *_devices(probed.result(), patient.profile)]


def _cluster(patient: Patient) -> tuple[list[Finding], set[str]]:
    known, profile = slurm.find_slurm(), patient.profile
    found = [
        slurm.commands(known, profile),
        slurm.submission(known, profile, patient.profile_source),
        slurm.accounting(known),
        slurm.node_names(known, profile),
        slurm.own_name(known, profile),
    ]
    return found, known.other_hosts


def _folder(runs: Path) -> list[Finding]:
    checks = (files.writable, files.atomic_rename, files.hard_links, files.exclusive_create, files.room, files.clock)
    first = checks[0](runs)
    # Where nothing can be written, the other trials would say the same.
    return [first] if first.level == "problem" else [first, *(check(runs) for check in checks[1:])]


def _machine() -> list[Finding]:
    return [machine.python(), machine.packages(), machine.memory(), machine.ports()]


def _devices(probed: devices.Probed, profile: Profile) -> list[Finding]:
    first = devices.torch_imports(probed)
    if first.level != "ok":
        return [first]
    return [first, devices.gpu(probed, profile.gpus_per_node), devices.collectives(probed)]


def findings_table(findings: list[Finding]) -> Table:
    table = Table(box=SIMPLE, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    for one in findings:
        told = Text(one.said)
        if one.cure:
            told.append("\ncure:", "bold").append(f" {one.cure}")
        table.add_row(Text(one.level, COLOURS[one.level]), one.check, told)
    return table


def line_of(finding: Finding) -> str:
    """`warning  file clock: it is 40 s ahead; cure: ...`, in one line."""
    cure = f"; cure: {finding.cure}" if finding.cure else ""
    return f"{finding.level:8} {finding.check}: {finding.said}{cure}"
