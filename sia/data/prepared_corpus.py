"""A prepared corpus on disk: the folder of shards that training reads.

corpus.json      name, identity, counts, features, image side, pixel statistics; written last
captions.jsonl   every caption with its place in the shards
captions.npy     the index of its lines
dropped.jsonl    every utterance left out, with its reason
shards/*.h5
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sia.atomic import read_json
from sia.config import Data, Model
from sia.data.caption_index import PlacedCaptions
from sia.data.corpus_record import Description
from sia.data.manifest import SPLITS
from sia.data.shards import ShardReader
from sia.errors import UserError
from sia.run.records import TrainedOn


def shard_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}.h5"


@dataclass
class PreparedCorpus:
    """The captions of a prepared corpus; frames and images are read from its shards on demand.

    Copies of it may go to worker processes: each opens the files itself, and refuses those of another corpus that took
    this one's place since it was opened. What is read is compared with its checksum.
    """

    folder: Path
    description: dict[str, Any]
    captions: PlacedCaptions
    checksums: dict[str, Any]
    _readers: dict[int, ShardReader] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path) -> "PreparedCorpus":
        """Raises UserError that names the folder and the command that fills it."""
        description = read_description(folder)
        checksums = description.pop("checksums")
        return cls(folder, description, PlacedCaptions(folder, checksums["index"]), checksums)

    @property
    def identity(self) -> str:
        return self.description["identity"]

    def normalised_as(self, trained_on: dict[str, Any]) -> "PreparedCorpus":
        """The same corpus, its inputs normalised with the statistics of the corpus that a pair was trained on.

        They belong to the pair, not to the corpus that it is measured on.
        """
        statistics = {key: trained_on[key] for key in STATISTICS if key in trained_on}
        return replace(self, description={**self.description, **statistics})

    @cached_property
    def indices_of_split(self) -> dict[str, list[int]]:
        splits = self.captions.column("split")
        return {split: np.flatnonzero(splits == number).tolist() for number, split in enumerate(SPLITS)}

    def split(self, name: str) -> list[int]:
        """Indices of the captions of a split. Raises UserError where it has none."""
        if not self.indices_of_split.get(name):
            held = ", ".join(split for split, indices in self.indices_of_split.items() if indices)
            raise UserError(f"{self.folder}: no caption of split {name!r}; this corpus has {held}")
        return self.indices_of_split[name]

    def image_pool(self, indices: Sequence[int]) -> list[int]:
        """One caption index for each image that queries of these captions choose among.

        Where splits hold out images, the captions' own images; where they hold out captions, all images there are.
        """
        own = self.description["held_out"] == "images"
        among = np.asarray(indices, np.int64) if own else np.arange(len(self.captions))
        _, first = np.unique(self.captions.column("image")[among], return_index=True)
        return among[np.sort(first)].tolist()

    def frames(self, index: int) -> np.ndarray:
        """The speech frames [T, F] of a caption; F is the corpus's `coefficients`."""
        caption = self.captions[index]
        return self._reader(caption.shard).frames(caption.row, caption.utterance_id)

    def image(self, index: int) -> bytes:
        """The encoded file of a caption's image."""
        caption = self.captions[index]
        return self._reader(caption.shard).image(caption.image_row, caption.utterance_id)

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._readers:
            reader = ShardReader(shard_path(self.folder, shard))
            reader.check(self.checksums["shards"][shard])
            self._readers[shard] = reader
        return self._readers[shard]

    def __getstate__(self) -> dict[str, Any]:
        # An HDF5 handle that crosses a fork or a pickle reads garbage; what can be derived is, where it is needed.
        derived = {name: value for name, value in self.__dict__.items() if name != "indices_of_split"}
        return {**derived, "_readers": {}}


STATISTICS = ("pixel_mean", "pixel_std", "frame_mean", "frame_std")


class MissingCorpus(UserError):
    """There is no prepared corpus where the experiment looks for it."""


def read_description(folder: Path, corpus: str = "NAME") -> dict[str, Any]:
    """corpus.json of a prepared corpus. Raises UserError that names the folder and the cure."""
    description = read_json(folder / "corpus.json")
    if description is None:
        begun = (folder / "plan.json").exists()
        problem = "its preparation was not finished" if begun else "no prepared corpus there"
        raise MissingCorpus(
            f"{folder}: {problem}; prepare it there first: "
            f"python jobs/prepare.py --corpus {corpus} --root DIR --out {folder}"
        )
    Description.check(folder / "corpus.json", description)
    return dict(description)


def check_identity(folder: Path, description: dict[str, Any], known: TrainedOn | None, run: Path) -> None:
    """Raises UserError where a run was begun on another corpus, `known`, than the one in the folder now."""
    if known is not None and known.identity != description["identity"]:
        check_features(folder, description, known.features or description["features"])
        raise UserError(
            f"{run}: begun on corpus {known.identity}, {folder} is {description['identity']}; "
            "set data.folder to the first one, or delete the run folder to begin again"
        )


def check_splits(folder: Path, description: dict[str, Any], select_on: str) -> None:
    """Raises UserError where a split that a run needs has no caption."""
    held = [split for split, count in description["num_captions"].items() if count]
    for split in ("train", select_on, "test"):
        if split not in held:
            cure = "set training.select_on=test, or " if split == "validation" else ""
            raise UserError(
                f"{folder}: no caption of split {split!r}; this corpus has {', '.join(held)}; "
                f"{cure}prepare a corpus that has it"
            )


def check_short_side(folder: Path, description: dict[str, Any], data: Data) -> None:
    """Raises UserError where images of another size were prepared than the experiment crops from.

    Of original files (a short side of None), any size is made when they are read.
    """
    side = description["short_side"]
    if side not in (None, data.short_side):
        raise UserError(
            f"{folder}: images were prepared with a short side of {side}, data.short_side is {data.short_side}; "
            f"set data.short_side={side} or prepare the corpus again"
        )


def check_features(folder: Path, description: dict[str, Any], features: dict[str, Any]) -> None:
    """Raises UserError where the corpus's frames are not of the kind, `features`, that a pair was trained on."""
    held = description["features"]
    if held != features:
        raise UserError(
            f"{folder}: it holds {_told(held, features)}, the pair was trained on {_told(features, held)}; "
            "give a corpus of the pair's features, or train another pair on this one"
        )


def check_frame_features(folder: Path, description: dict[str, Any], model: Model) -> None:
    """Raises UserError where a frame has another width than the speech branch reads."""
    width = description["features"]["coefficients"]
    if width != model.frame_features:
        raise UserError(
            f"{folder}: its frames have {width} coefficients, model.frame_features is {model.frame_features}; "
            f"set model.frame_features={width} or prepare the corpus with other features"
        )


def _told(features: dict[str, Any], others: dict[str, Any]) -> str:
    """The kind of features, and what else of them differs from the others'."""
    different = [key for key in features if key != "kind" and features[key] != others.get(key)]
    details = ", ".join(f"{key} {features[key]}" for key in different)
    return f"{features.get('kind', 'unnamed')} frames" + (f" ({details})" if details else "")
