"""The recording that a prepared caption was made of: a prepared corpus holds its frames alone."""

from functools import cache
from pathlib import Path

import soundfile

from sia.data import hdf5_path
from sia.data.manifest import read_captions
from sia.data.prepare import plan_path
from sia.data.prepared_corpus import PreparedCorpus
from sia.errors import UserError


def recording_of(corpus: PreparedCorpus, index: int) -> Path:
    """Where a caption's recording lay as the corpus was prepared, or lies since the corpus was moved with it.

    Raises UserError where it cannot be had, or where another one, of another length, has taken its place.
    """
    name, numbers = corpus.captions.utterance_id(index), corpus.captions.numbers(index)
    plan = plan_path(corpus.folder, int(numbers["shard"]))
    told = (_recordings(plan) if plan.is_file() else {}).get(name)
    if told is None:
        raise UserError(f"{plan}: tells nothing of the recording of {name!r}")
    path = _moved_with(corpus.folder, Path(told))
    if not path.is_file():
        inside = " (it was given as features, not as a recording)" if hdf5_path.parse(told) else ""
        raise UserError(f"{path}: no such file any more{inside}")
    seconds, hop = soundfile.info(path).duration, _seconds_a_frame(corpus)
    if hop and abs(seconds / hop - int(numbers["num_frames"])) > 2:
        raise UserError(f"{path}: no longer the recording that was prepared")
    return path


def _moved_with(folder: Path, path: Path) -> Path:
    """The file itself, or the one of the same place within a corpus's folder that has been moved or copied."""
    ends = [] if path.is_file() else [Path(*path.parts[start:]) for start in range(1, len(path.parts))]
    return next((folder / end for end in ends if (folder / end).is_file()), path)


def _seconds_a_frame(corpus: PreparedCorpus) -> float | None:
    features = corpus.description.features
    return features["hop_length"] / features["sample_rate"] if features["kind"] == "mfcc" else None


@cache
def _recordings(plan: Path) -> dict[str, str]:
    return {caption.utterance_id: caption.speech_path for caption in read_captions(plan)}
