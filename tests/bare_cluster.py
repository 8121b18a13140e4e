"""A cluster in a box of the tests' own, without accounting: its folder, its ports, its commands."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from desk import REPOSITORY

SCRIPTS = REPOSITORY / "slurm" / "devcluster"


class BareCluster:
    """slurm/devcluster's commands on a folder and ports that no other cluster uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        own = {"SIA_DEVCLUSTER": str(folder), "SIA_DEVCLUSTER_PORT": str(free_ports(4)), "SLURM_CONF": str(self.conf)}
        self.environment = {**os.environ, **own}

    def command(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """up, down or status."""
        command = [str(SCRIPTS / name), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def up(self) -> "subprocess.CompletedProcess[str]":
        return self.command("up", "--no-accounting")

    def slurm(self, *command: str) -> str:
        answer = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return answer.stdout.strip()

    def processes(self) -> list[int]:
        """All that carry the cluster's mark or run on its configuration: daemons, jobs, and who watches these."""
        marks = {f"SIA_DEVCLUSTER={self.folder}".encode(), f"SLURM_CONF={self.conf}".encode()}
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if marks & set((place / "environ").read_bytes().split(b"\0")):
                    found.append(int(place.name))
            except OSError:
                continue
        return found


@contextmanager
def bare_cluster() -> Iterator[BareCluster]:
    """Not up yet; down in the end, whatever happened. The folder's name is short, as a socket's path must be."""
    folder = Path(tempfile.mkdtemp(prefix="sia-bare-"))
    folder.rmdir()
    cluster = BareCluster(folder)
    try:
        yield cluster
    finally:
        cluster.command("down")
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on; processes that share the tests look in other ones."""
    first = 19000 + 200 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while not all(_is_free(port) for port in range(first, first + count)):
        first += count
    return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
