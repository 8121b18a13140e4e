"""Python, its packages, memory and ports of this machine."""

import platform
import socket
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from sia.checks import Finding, check, ok, problem, warning

INSTALL = "make a fresh environment with `make`, or: pip install -e ."
# The driver of a sweep with Ray Tune, and sixteen trials of about 116 MB.
ENOUGH_GB = 2.5
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


@check("Python")
def python() -> Finding:
    from packaging.specifiers import SpecifierSet

    wanted, found = metadata("sia")["Requires-Python"] or ">=3.10", platform.python_version()
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return ok(f"{found} (needs {wanted})")
    return problem(
        f"{found}, but sia needs {wanted}", "make the environment with a newer Python: make PYTHON=python3.11"
    )


@check("packages")
def packages(requirements: list[str] | None = None) -> Finding:
    """The installed versions against setup.cfg's ranges, as they were when sia was installed."""
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in (requires("sia") or [] if requirements is None else requirements)]
    faults = []
    for one in needed:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        found = _version(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            faults.append(f"{one.name} {found or 'missing'} (needs {one.specifier})")
    return problem(", ".join(faults), INSTALL) if faults else ok("all within their ranges")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@check("memory")
def memory() -> Finding:
    free_gb = min([_available_gb(), *_cgroup_gb()])
    said = f"{free_gb:.1f} GB free on this machine"
    cure = "a driver needs about 0.7 GB and 0.12 GB a run at once: lower --max-concurrent, or use --detach"
    return ok(said) if free_gb >= ENOUGH_GB else warning(said, cure)


def _available_gb() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return kilobytes * 1024 / 1e9


def _cgroup_gb() -> list[float]:
    """What a login node's limit on a user's memory leaves."""
    given = [
        (limit.read_text().strip(), used.read_text()) for limit, used in CGROUPS if limit.is_file() and used.is_file()
    ]
    return [(int(limit) - int(used)) / 1e9 for limit, used in given if limit.isdigit()]


@check("ports")
def ports() -> Finding:
    """Ranks meet on a port that the system chooses."""
    try:
        with socket.socket() as one:
            one.bind(("", 0))
    except OSError as error:
        return problem(f"no port can be opened: {error.strerror}", "ask for more open files or ports (ulimit -n)")
    return ok("free ports can be opened")
