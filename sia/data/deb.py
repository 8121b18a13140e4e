"""A Debian package, unpacked without root."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

from sia.errors import UserError

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60
LARGEST_BYTES = 4 << 30  # twenty times the package of stamps
MOST_FILES = 200_000
PADDING_BYTES = 1 << 20  # more than follows a tar archive's end
FAULTS = (tarfile.TarError, EOFError, ValueError)  # of the package, not of this machine


def unpack(deb: Path, folder: Path) -> None:
    """Unpack the files of `deb` into the new folder `folder`, which is whole or absent.

    Raises UserError for a file that is no whole Debian package, and for a folder that cannot be written.
    """
    if not deb.is_file():
        raise UserError(f"{deb}: no such file; give the path of the package's .deb")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as temporary:
            unfinished = Path(temporary) / folder.name
            unfinished.mkdir()
            with _packed(deb) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
                _extract_files(archive, unfinished)
            os.replace(unfinished, folder)
    except FAULTS as error:
        cure = "download it again, or unpack it with `dpkg -x` and give the folder"
        raise UserError(f"{deb}: cannot unpack it ({error}); {cure}") from None
    except OSError as error:
        reason = f"{error.strerror or error}"
        raise UserError(
            f"{deb}: cannot unpack it into {folder} ({reason}); delete what is there, or unpack it elsewhere by hand"
        ) from None


def _packed(deb: Path) -> AbstractContextManager[IO[bytes]]:
    """The package's data.tar: decompressed by dpkg-deb, in whichever way it is packed, or else as it is."""
    return _by_dpkg(deb) if shutil.which("dpkg-deb") else _by_hand(deb)


@contextmanager
def _by_dpkg(deb: Path) -> Iterator[IO[bytes]]:
    packing = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with TemporaryFile("w+") as said, subprocess.Popen(packing, stdout=subprocess.PIPE, stderr=said) as process:
        assert process.stdout is not None
        fault: Exception | None = None
        try:
            yield process.stdout
            process.stdout.read(PADDING_BYTES)
        except FAULTS as error:
            fault = error
        process.stdout.close()
        if process.wait() != 0:
            said.seek(0)
            fault = ValueError((said.read().strip().splitlines() or [f"exit status {process.returncode}"])[0])
        if fault is not None:
            raise fault


@contextmanager
def _by_hand(deb: Path) -> Iterator[IO[bytes]]:
    """A .deb is an ar archive: `stream` is moved to the first byte of its member data.tar.*."""
    with open(deb, "rb") as stream:
        if stream.read(len(AR_MAGIC)) != AR_MAGIC:
            raise ValueError("no Debian package")
        while len(header := stream.read(AR_HEADER_BYTES)) == AR_HEADER_BYTES:
            name, num_bytes = header[:16].decode("ascii", "replace").strip(), int(header[48:58])
            if num_bytes < 0:
                raise ValueError(f"a member of {num_bytes} bytes")
            if name.startswith("data.tar"):
                yield stream
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
