"""A prepared corpus on disk: the folder of shards that training reads.

corpus.json      name, identity, counts, features, image side, pixel statistics; written last
captions.jsonl   every caption with its place in the shards
dropped.jsonl    every utterance left out, with its reason
shards/*.h5
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sia.atomic import read_json
from sia.config import Data
from sia.data.manifest import SPLITS
from sia.data.shards import ShardReader
from sia.errors import UserError


@dataclass(frozen=True, slots=True)
class PlacedCaption:
    """A caption and where its frames and image lie: rows of a shard."""

    utterance_id: str
    image_id: str
    split: str
    shard: int
    row: int
    image_row: int
    num_frames: int
    speaker: str = ""
    language: str = ""
    text: str = ""


def shard_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}.h5"


@dataclass
class PreparedCorpus:
    """The captions of a prepared corpus; frames and images are read from its shards on demand.

    Copies of it may go to worker processes: each opens the shards itself.
    """

    folder: Path
    description: dict[str, Any]
    captions: list[PlacedCaption]
    _readers: dict[int, ShardReader] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path) -> "PreparedCorpus":
        """Raises UserError that names the folder and the command that fills it."""
        description = read_description(folder)
        lines = (folder / "captions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        return cls(folder, description, [PlacedCaption(**json.loads(line)) for line in lines])

    @property
    def identity(self) -> str:
        return self.description["identity"]

    @cached_property
    def indices_of_split(self) -> dict[str, list[int]]:
        indices: dict[str, list[int]] = {split: [] for split in SPLITS}
        for index, caption in enumerate(self.captions):
            indices[caption.split].append(index)
        return indices

    def split(self, name: str) -> list[int]:
        """Indices of the captions of a split. Raises UserError where it has none."""
        if not self.indices_of_split.get(name):
            held = ", ".join(split for split, indices in self.indices_of_split.items() if indices)
            raise UserError(f"{self.folder}: no caption of split {name!r}; this corpus has {held}")
        return self.indices_of_split[name]

    def image_pool(self, indices: list[int]) -> list[int]:
        """One caption index for each image that queries of these captions choose among.

        Where splits hold out images, the captions' own images; where they hold out captions, all images there are.
        """
        among = indices if self.description["held_out"] == "images" else range(len(self.captions))
        first: dict[str, int] = {}
        for index in among:
            first.setdefault(self.captions[index].image_id, index)
        return list(first.values())

    def frames(self, index: int) -> np.ndarray:
        """The MFCC frames [T, 40] of a caption."""
        caption = self.captions[index]
        return self._reader(caption.shard).frames(caption.row)

    def image(self, index: int) -> bytes:
        """The encoded file of a caption's image."""
        caption = self.captions[index]
        return self._reader(caption.shard).image(caption.image_row)

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._readers:
            self._readers[shard] = ShardReader(shard_path(self.folder, shard))
        return self._readers[shard]

    def __getstate__(self) -> dict[str, Any]:
        # An HDF5 handle that crosses a fork or a pickle reads garbage.
        return {**self.__dict__, "_readers": {}}


class MissingCorpus(UserError):
    """There is no prepared corpus where the experiment looks for it."""


def read_description(folder: Path, corpus: str = "NAME") -> dict[str, Any]:
    """corpus.json of a prepared corpus. Raises UserError that names the folder and the cure."""
    description = read_json(folder / "corpus.json")
    if description is None:
        begun = (folder / "plan.json").exists()
        problem = "its preparation was not finished" if begun else "no prepared corpus there"
        raise MissingCorpus(
            f"{folder}: {problem}; run `python jobs/prepare.py --corpus {corpus} --root DIR --out {folder}`, "
            "or say where it lies with `--set data.folder=DIR`"
        )
    return description


def check_short_side(folder: Path, description: dict[str, Any], data: Data) -> None:
    """Raises UserError where images of another size were prepared than the experiment crops from."""
    side = description["short_side"]
    if side != data.short_side:
        raise UserError(
            f"{folder}: images were prepared with a short side of {side}, data.short_side is {data.short_side}; "
            f"set data.short_side={side} or prepare the corpus again"
        )
