"""A Debian package, unpacked without root."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sia.errors import UserError

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60
LARGEST_BYTES = 4 << 30  # twenty times the package of stamps
MOST_FILES = 200_000
PADDING_BYTES = 1 << 20  # more than follows a tar archive's end


def unpack(deb: Path, folder: Path) -> None:
    """Unpack the files of `deb` into the new folder `folder`, which is whole or absent.

    Raises UserError for a file that is no Debian package, and for a folder that cannot be written.
    """
    if not deb.is_file():
        raise UserError(f"{deb}: no such file; give the path of the package's .deb")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            _unpack_into(deb, unfinished)
            unfinished.chmod(0o755)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        reason = f"{error.strerror or error}"
        raise UserError(
            f"{deb}: cannot unpack it into {folder} ({reason}); delete what is there, or unpack it elsewhere by hand"
        ) from None


def _unpack_into(deb: Path, folder: Path) -> None:
    with open(deb, "rb") as stream:
        if stream.read(len(AR_MAGIC)) != AR_MAGIC:
            raise UserError(f"{deb}: no Debian package; give a .deb file or an unpacked folder")
    if shutil.which("dpkg-deb"):
        _unpack_with_dpkg(deb, folder)
    else:
        unpack_with_python(deb, folder)


def _unpack_with_dpkg(deb: Path, folder: Path) -> None:
    """dpkg-deb decompresses, in whichever way; what is written where is decided here."""
    packing = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(packing, stdout=subprocess.PIPE, stderr=said) as packed,
    ):
        assert packed.stdout is not None
        fault = ""
        try:
            with tarfile.open(fileobj=packed.stdout, mode="r|") as archive:
                _extract_files(archive, folder)
            packed.stdout.read(PADDING_BYTES)
        except (tarfile.TarError, EOFError, ValueError) as error:
            fault = str(error)
        packed.stdout.close()
        if packed.wait() != 0 or fault:
            said.seek(0)
            told = (said.read().strip().splitlines() or [fault or f"exit status {packed.returncode}"])[0]
            raise UserError(f"{deb}: cannot unpack it ({told}); download the package again")


def unpack_with_python(deb: Path, folder: Path) -> None:
    """For machines without dpkg: a .deb is an ar archive that holds a data.tar.*.

    Raises UserError where the archive is cut short, or compressed in a way that Python's tarfile does not know.
    """
    try:
        with open(deb, "rb") as stream:
            _seek_data(stream)
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                _extract_files(archive, folder)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{deb}: cannot unpack it ({error}); unpack it with `dpkg -x` and give the folder") from None


def _seek_data(stream: BinaryIO) -> None:
    """Move `stream` to the first byte of the member data.tar.*; ValueError where there is none."""
    stream.seek(len(AR_MAGIC))
    while len(header := stream.read(AR_HEADER_BYTES)) == AR_HEADER_BYTES:
        name, num_bytes = header[:16].decode("ascii", "replace").strip(), int(header[48:58])
        if num_bytes < 0:
            raise ValueError(f"a member of {num_bytes} bytes")
        if name.startswith("data.tar"):
            return
        stream.seek(num_bytes + num_bytes % 2, os.SEEK_CUR)
    raise ValueError("no data.tar in it")


def _extract_files(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the regular files, and nothing outside `folder`. Raises ValueError for more than a package can hold.

    tarfile's filter="data" would do, but early releases of Python 3.10 and 3.11 do not have it.
    """
    num_bytes = 0
    for number, member in enumerate(archive, start=1):
        num_bytes += max(0, member.size)
        if num_bytes > LARGEST_BYTES or number > MOST_FILES:
            raise ValueError(f"it unpacks to more than {LARGEST_BYTES >> 30} GiB or {MOST_FILES:,} files")
        name = PurePosixPath(member.name)
        content = archive.extractfile(member) if member.isreg() else None
        if content is None or name.is_absolute() or ".." in name.parts:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as stream:
            shutil.copyfileobj(content, stream)
