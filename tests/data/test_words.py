"""Words and their times, as an aligner writes them beside recordings."""

from pathlib import Path

import pytest

from sia.data.words import WORDS, Word, lines_of, words_of
from sia.errors import UserError


def test_words_come_in_their_order_and_what_is_written_is_read(tmp_path: Path) -> None:
    said = [Word("a", 0.0, 0.25), Word("star", 0.25, 0.75)]
    (tmp_path / WORDS).write_text(f";; a comment\n\nother 1 0.1 0.2 b 0.9\n{lines_of('one', said[::-1])}")
    assert words_of(tmp_path / "one.flac") == said
    assert [word.text for word in words_of(tmp_path / "other.wav")] == ["b"], "confidences are left alone"
    assert words_of(tmp_path / "third.wav") == words_of(tmp_path / "nowhere" / "one.flac") == []


def test_a_line_that_tells_no_time_is_named(tmp_path: Path) -> None:
    (tmp_path / WORDS).write_text("one 1 0.1 0.2 a\none 1 soon 0.2 b\n")
    with pytest.raises(UserError, match=r"words\.ctm, line 2: 'one 1 soon 0\.2 b' is no"):
        words_of(tmp_path / "one.flac")
