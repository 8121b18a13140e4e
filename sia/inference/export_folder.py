"""The folder of an exported pair: its two files, and whether a folder may become one. It loads no torch."""

from pathlib import Path

from sia.errors import UserError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def is_export(folder: Path) -> bool:
    """Whether the folder holds an exported pair, whole or not."""
    return (folder / WEIGHTS).is_file()


def check_export_folder(out: Path) -> None:
    """Raises UserError where `out` is a file, or a folder of something else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is there; give the folder of an export with --out")
    strange = sorted(path.name for path in out.iterdir() if path.name not in (WEIGHTS, CONFIG)) if out.exists() else []
    # What a killed export left is its own.
    strange = [name for name in strange if not (name.startswith(f".{WEIGHTS}.") or name.startswith(f".{CONFIG}."))]
    if strange:
        raise UserError(f"{out}: holds {strange[0]!r}, no export does; give a new folder with --out")
