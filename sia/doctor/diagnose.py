"""All checks, in the order in which a person reads them; the slow ones run beside each other."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from sia.checks import Finding
from sia.cluster.profile import Profile
from sia.doctor import files, machine, slurm
from sia.trackers.tracker import Tracker

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def diagnose(profile: Profile, source: str, runs: Path, tracker: Tracker) -> Iterator[Finding]:
    """A finding a check, as it is known; none raises, none needs a GPU or Slurm, and nothing is left behind.

    source: where the profile was read. runs: the folder of all studies. tracker: whose store is examined.
    """
    pool = ThreadPoolExecutor(4)
    try:
        probed = pool.submit(machine.probe_torch)
        of_tracker = pool.submit(tracker.findings)
        of_cluster = pool.submit(_cluster, profile, source)
        of_folder = _folder(runs)
        found, other_hosts = of_cluster.result()
        yield from (*found, *of_folder, files.shared(runs, other_hosts))
        yield from of_tracker.result()
        yield from (machine.packages(), machine.memory())
        yield (torch := machine.torch_imports(probed.result()))
        if torch.level == "ok":
            yield machine.gpu(probed.result(), profile.gpus_per_node)
            yield machine.collectives(probed.result())
    finally:  # whoever presses Ctrl-C does not wait for a program that hangs
        pool.shutdown(wait=False, cancel_futures=True)


def _cluster(profile: Profile, source: str) -> tuple[list[Finding], set[str]]:
    known = slurm.find_slurm()
    found = [
        slurm.commands(known, profile),
        slurm.submission(known, profile, source),
        slurm.accounting(known),
        slurm.node_names(known, profile),
        slurm.own_name(known, profile),
    ]
    return found, known.other_hosts


def _folder(runs: Path) -> list[Finding]:
    first = files.writable(runs)
    if first.level == "problem":
        return [first]  # where nothing can be written, the other trials would say the same
    return [first, files.atomic_rename(runs), files.hard_links(runs), files.room(runs), files.clock(runs)]


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
