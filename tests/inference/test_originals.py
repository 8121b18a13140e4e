"""The recordings of a corpus are found where they were, or where they were moved to with it."""

from pathlib import Path

import pytest
import tiny_corpus

from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UserError
from sia.inference.prepared import recording_of


def test_recordings_move_with_their_corpus(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    tiny_corpus.write_corpus(old / "raw", kinds=1)
    before = tiny_corpus.prepare(old / "raw", old)
    place = recording_of(before, 0).relative_to(old)
    old.rename(new)
    moved = PreparedCorpus.open(new)
    assert recording_of(moved, 0) == new / place
    (new / place).write_bytes(b"RIFF, and no more")
    with pytest.raises(UserError, match=rf"{new / place}: no recording that can be read any more"):
        recording_of(moved, 0)
    (new / place).unlink()
    with pytest.raises(UserError, match=rf"{old / place}: no such file any more"):
        recording_of(moved, 0)
