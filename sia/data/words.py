"""When each word of a recording is said: `words.ctm` beside the recordings, where a corpus has one.

A line a word, as forced aligners write it (NIST's CTM): the recording's name without its ending, a channel, the word's
start and duration in seconds, the word.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sia.errors import UserError

WORDS = "words.ctm"


class Word(NamedTuple):
    """Start and end in seconds from the recording's start."""

    text: str
    start: float
    end: float


def lines_of(recording: str, words: Iterable[Word]) -> str:
    """The lines of a recording, without a decimal that a recorder could not know."""
    return "".join(f"{recording} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text}\n" for word in words)


def words_of(recording: Path) -> list[Word]:
    """The words of a recording in their order; none where nothing tells. Raises UserError that names a bad line."""
    return _words_below(recording.parent).get(recording.stem, [])


@cache
def _words_below(folder: Path) -> dict[str, list[Word]]:
    path, found = folder / WORDS, defaultdict[str, list[Word]](list)
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else (), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            recording, _, start, seconds, text = line.split()[:5]
            found[recording].append(Word(text, float(start), float(start) + float(seconds)))
        except ValueError:
            problem = f"{line[:60]!r} is no recording, channel, start, duration and word"
            raise UserError(f"{path}, line {number}: {problem}; mend or remove the file") from None
    return {recording: sorted(words, key=lambda word: word.start) for recording, words in found.items()}
