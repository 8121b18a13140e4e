"""Which file system a path lies on."""

from pathlib import Path

NETWORK_FILE_SYSTEMS = (
    *("nfs", "nfs4", "lustre", "beegfs", "gpfs", "cifs", "smbfs", "smb3", "ceph", "glusterfs", "afs", "9p"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs", "fuse.weka", "wekafs", "panfs", "orangefs"),
)


def file_system_of(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system that an absolute path lies on, None if no mount tells.

    `mounts` is the text of /proc/mounts.
    """
    found, longest = None, -1
    for line in (_proc_mounts() if mounts is None else mounts).splitlines():
        _, mount, file_system, *_ = line.split(" ")
        mount_point = Path(mount.replace("\\040", " "))
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= longest:
            found, longest = file_system, len(mount_point.parts)
    return found


def _proc_mounts() -> str:
    try:
        return Path("/proc/mounts").read_text()
    except OSError:
        return ""


def existing(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    return next(one for one in (path, *path.parents) if one.exists())
