"""What the tests of the corpora's readers share: files that only have to be there, a refusal, a prepared corpus."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sia.data.corpora import read
from sia.data.manifest import Reading
from sia.data.prepare import finish, plan, write_shard
from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write_lines(path: Path, lines: list[str]) -> None:
    touch(path).write_text("".join(f"{line}\n" for line in lines))


def write_json(path: Path, content: Any) -> None:
    touch(path).write_text(json.dumps(content))


def picture(path: Path, shade: int = 0) -> None:
    Image.new("RGB", (40, 36), (shade, 1, 2)).save(touch(path))


def dropped(reading: Reading) -> dict[str, str]:
    return {entry.utterance_id: entry.reason for entry in reading.dropped}


def refused(name: str, root: Path, fault: str) -> None:
    """The reader's fault is one line that matches."""
    with pytest.raises(UserError, match=fault) as caught:
        read(name, root)
    assert "\n" not in str(caught.value)


def prepared(name: str, root: Path, out: Path) -> PreparedCorpus:
    for number in range(plan(name, root, out, 2, 32)):
        write_shard(out, number)
    finish(out)
    return PreparedCorpus.open(out)
