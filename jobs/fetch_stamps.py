"""Fetch Tux Paint's stamps, a real corpus, and unpack them.

examples:
  python jobs/fetch_stamps.py --out corpora/stamps/raw
"""

import shutil
import subprocess
import sys
from pathlib import Path

from sia import command
from sia.data.corpora.stamps import PACKAGED
from sia.data.deb import unpack
from sia.errors import UserError

PACKAGE = "tuxpaint-stamps-default"


def download(folder: Path) -> Path:
    """Let apt fetch the package into `folder`, without root; what an earlier call left there is gone on with."""
    elsewhere = f"fetch Debian's package {PACKAGE} elsewhere and pass it: `make stamps STAMPS=path/to.deb`"
    if not shutil.which("apt-get"):
        raise UserError(f"this machine has no apt-get; {elsewhere}")
    folder.mkdir(parents=True, exist_ok=True)
    fetching = ["apt-get", "download", PACKAGE]
    done = subprocess.run(fetching, cwd=folder, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    debs = sorted(folder.glob("*.deb"))
    if done.returncode != 0 or not debs:
        told = next((line for line in done.stderr.splitlines() if line.startswith("E:")), "it gave no reason")
        raise UserError(f"apt-get download failed ({told}); let root run `apt-get update`, or {elsewhere}")
    return debs[-1]


def link(unpacked: Path, out: Path) -> None:
    if not (unpacked / PACKAGED).is_dir():
        raise UserError(f"{unpacked}: no {PACKAGED} in it; give the folder that `dpkg -x` unpacked {PACKAGE} into")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir():
        out.rmdir()
    out.symlink_to(unpacked.resolve())


def main() -> None:
    """A user's own .deb is kept, a fetched one is not; to a folder that it was unpacked into, a link is made."""
    parser = command.parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("corpora/stamps/raw"), help="the folder to unpack into")
    parser.add_argument("--deb", type=Path, help="the package, or its unpacked folder, if you have it")
    options = parser.parse_args()
    out, deb = options.out, options.deb
    if (out / PACKAGED).is_dir():
        print(f"{out}: the stamps are there already")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: a folder with other files; delete it, or give another with --out")
    elif deb is not None and deb.is_dir():
        link(deb, out)
        print(f"{out}: the stamps of {deb}")
    else:
        downloads = out.with_name(f".{out.name}.download")
        unpack(deb or download(downloads), out)
        shutil.rmtree(downloads, ignore_errors=True)
        print(f"{out}: unpacked the stamps")


if __name__ == "__main__":
    command.run(main)
