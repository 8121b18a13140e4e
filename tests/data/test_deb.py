"""A .deb with and without dpkg-deb: whole or absent, nothing outside its folder, a line for what is no package."""

import errno
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from sia.data.corpora.stamps import PACKAGED
from sia.data.deb import AR_MAGIC, unpack
from sia.errors import UserError


@pytest.fixture(params=["dpkg", "python"], autouse=True)
def unpacked_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb")
    return request.param


def ar(*members: tuple[str, int | None, bytes]) -> bytes:
    """An ar archive; a member may tell a size that is not its own."""
    return AR_MAGIC + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(held) if told is None else told:<10}`\n".encode()
        + (held + b"\n" * (len(held) % 2))
        for name, told, held in members
    )


def tar(*members: tuple[str, str], mode: str = "w:xz") -> bytes:
    """An archive of small files, of links ("-> target"), or of a header that tells of a petabyte."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
            info.size = 0 if info.issym() else len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return stream.getvalue()


def package(*files: tuple[str, str]) -> bytes:
    return ar(("debian-binary", None, b"2.0\n"), ("control.tar.xz", None, tar()), ("data.tar.xz", None, tar(*files)))


def header(size: int) -> bytes:
    info = tarfile.TarInfo("./a")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_regular_files_are_written_and_nothing_outside_the_folder(tmp_path: Path) -> None:
    inside = f"./{PACKAGED}/frog.txt"
    files = [(inside, "A frog."), ("./usr/out", "-> /etc"), ("../escaped", "climbed"), ("/absolute", "climbed")]
    (tmp_path / "stamps.deb").write_bytes(package(*files))
    unpack(tmp_path / "stamps.deb", tmp_path / "unpacked")
    assert files_below(tmp_path) == {"stamps.deb", f"unpacked/{PACKAGED}/frog.txt"}
    assert (tmp_path / "unpacked" / inside).read_text() == "A frog."
    assert (tmp_path / "unpacked").stat().st_mode & 0o500 == 0o500


def test_a_deb_is_a_root_of_the_stamps_and_unpacked_beside_itself(tmp_path: Path) -> None:
    from sia.data.corpora.stamps import read

    names = [f"./{PACKAGED}/frog.png", f"./{PACKAGED}/frog_desc.ogg"]
    (tmp_path / "stamps_1-1_all.deb").write_bytes(package(*((name, "x") for name in names)))
    (caption,) = read(tmp_path / "stamps_1-1_all.deb").captions
    assert caption.speech_path == str(tmp_path / "stamps_1-1_all" / PACKAGED / "frog_desc.ogg")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "content",
    [
        b"no package",
        AR_MAGIC,
        AR_MAGIC + b"data.tar.xz" + b" " * 37 + b"9         `\nxx",
        package(("./a", "x" * 5000))[:-200],
        ar(("debian-binary", -60, b"")),
        ar(("debian-binary", 4, b"2.0\n"), ("control.tar", -4, b""), ("data.tar", 0, b"")),
        ar(("debian-binary", 4, b"2.0\n"), ("control.tar", 0, b""), ("data.tar", 512, header(1 << 50))),
    ],
    ids=["text", "empty", "short", "cut", "backwards", "backwards to a member", "a petabyte"],
)
def test_a_broken_deb_is_one_line_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    deb = tmp_path / "broken.deb"
    deb.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.deb: cannot unpack it .*dpkg -x") as caught:
        unpack(deb, tmp_path / "unpacked")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [deb]


def test_a_full_disk_is_no_fault_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*streams: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    (tmp_path / "a.deb").write_bytes(package(("./a", "x" * 500_000)))
    with pytest.raises(UserError, match=r"cannot unpack it into .*No space left on device"):
        unpack(tmp_path / "a.deb", tmp_path / "unpacked")
