"""The blocks of the corpus on disk, each a folder made by a fresh process and moved into place when it is whole."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

from sia.clock import age_seconds
from sia.data.corpora.scenes.plan import Block, block_to_json
from sia.errors import UserError

UNFINISHED = ".making-"
ABANDONED_SECONDS = 600  # a block takes a few seconds; what is younger may belong to a process beside this one


def make_blocks(root: Path, blocks: list[Block]) -> None:
    """Makes the blocks that are not whole, as many at once as there are cores."""
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        futures = [threads.submit(_make_block, root, block) for block in blocks]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def is_whole(folder: Path, block: Block) -> bool:
    """Whether every file is there. Each is whole, for the folder was moved into place after all were written."""
    return all((folder / name).is_file() for name in block.file_names)


def _remove_abandoned(root: Path) -> None:
    """Removes the unfinished blocks of a generation that was killed."""
    for folder in root.glob(f"{UNFINISHED}*"):
        if age_seconds(folder) > ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _make_block(root: Path, block: Block) -> None:
    folder = root / block.name
    if is_whole(folder, block):
        return
    with TemporaryDirectory(prefix=UNFINISHED, dir=root) as temporary:
        made = Path(temporary) / block.name
        made.mkdir()
        _run_maker(made, block)
        shutil.rmtree(folder, ignore_errors=True)
        _move(made, folder, block)


def _run_maker(folder: Path, block: Block) -> None:
    # Not multiprocessing: its spawn runs the caller's main module again, which a notebook or a stdin script lacks.
    maker = [sys.executable, "-m", "sia.data.corpora.scenes", str(folder)]
    finished = subprocess.run(maker, input=block_to_json(block), capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise UserError(f"{folder.parent.parent}: {block.name} of scenes could not be made: {lines[-1]}")


def _move(made: Path, folder: Path, block: Block) -> None:
    try:
        made.rename(folder)
    except OSError:
        if not is_whole(folder, block):  # another process, which makes the same corpus, may have been faster
            raise
