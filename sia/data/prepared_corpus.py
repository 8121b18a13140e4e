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

from sia.config import Data, Model
from sia.data.caption_index import PlacedCaptions
from sia.data.corpora import READERS
from sia.data.corpus_record import Description
from sia.data.manifest import SPLITS
from sia.data.shards import CURE, DAMAGED, Rows, open_rows, shard_path
from sia.errors import UserError
from sia.run.records import TrainedOn

STATISTICS = ("pixel_mean", "pixel_std", "frame_mean", "frame_std")


@dataclass
class PreparedCorpus:
    """The captions of a prepared corpus; frames and images are read from its shards on demand.

    Copies of it may go to worker processes: each opens the files itself, and refuses those of another corpus that took
    this one's place since it was opened. What is read is compared with its checksum.
    """

    folder: Path
    description: Description
    captions: PlacedCaptions
    _shards: dict[int, tuple[Rows, Rows]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path) -> "PreparedCorpus":
        """Raises UserError that names the folder and the command that fills it."""
        description = read_description(folder)
        return cls(folder, description, PlacedCaptions(folder, description.checksums.index))

    @property
    def identity(self) -> str:
        return self.description.identity

    def normalised_as(self, trained_on: dict[str, Any]) -> "PreparedCorpus":
        """The same corpus, its inputs normalised with the statistics of the corpus that a pair was trained on.

        They belong to the pair, not to the corpus that it is measured on.
        """
        statistics = {key: trained_on[key] for key in STATISTICS if key in trained_on}
        return replace(self, description=self.description.model_copy(update=statistics))

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
        own = self.description.held_out == "images"
        among = np.asarray(indices, np.int64) if own else np.arange(len(self.captions))
        _, first = np.unique(self.captions.column("image")[among], return_index=True)
        return among[np.sort(first)].tolist()

    @cached_property
    def frame_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation [F] of the training split's frames."""
        mean, std = self.description.frame_mean, self.description.frame_std
        return np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def frames(self, index: int) -> np.ndarray:
        """The speech frames [T, F] of a caption; F is the corpus's `coefficients`.

        Raises UserError that names shard and caption where they are not those that were written; `image` likewise.
        """
        numbers = self.captions.numbers(index)
        return self._read(index, "frames", self._rows(numbers.shard)[0], numbers.row)

    def image(self, index: int) -> bytes:
        """The encoded file of a caption's image."""
        numbers = self.captions.numbers(index)
        return self._read(index, "image", self._rows(numbers.shard)[1], numbers.image_row).tobytes()

    def _rows(self, shard: int) -> tuple[Rows, Rows]:
        if shard not in self._shards:
            expected = self.description.checksums.shards[shard]
            self._shards[shard] = open_rows(shard_path(self.folder, shard), expected)
        return self._shards[shard]

    def _read(self, index: int, what: str, rows: Rows, row: int) -> np.ndarray:
        try:
            return rows.read(row)
        except DAMAGED as error:
            name = self.captions.utterance_id(index)
            raise UserError(f"{rows.place.path}: the {what} of {name!r} cannot be read ({error}); {CURE}") from None

    def __getstate__(self) -> dict[str, Any]:
        # Files are opened, and what can be derived is, where it is needed.
        derived = {name: value for name, value in self.__dict__.items() if name != "indices_of_split"}
        return {**derived, "_shards": {}}


class MissingCorpus(UserError):
    """There is no prepared corpus where the experiment looks for it."""


def read_description(folder: Path, corpus: str = "NAME") -> Description:
    """corpus.json of a prepared corpus. Raises UserError that names the folder and the cure."""
    description = Description.read(folder / "corpus.json")
    if description is None:
        begun = (folder / "plan.json").exists()
        problem = "its preparation was not finished" if begun else "no prepared corpus there"
        what = f"--corpus {corpus} --root DIR" if corpus in (*READERS, "NAME") else "--root TABLE.csv"
        raise MissingCorpus(
            f"{folder}: {problem}; prepare it there first: python jobs/prepare.py {what} --out {folder}"
        )
    return description


def check_identity(folder: Path, description: Description, known: TrainedOn | None, run: Path) -> None:
    """Raises UserError where a run was begun on another corpus, `known`, than the one in the folder now."""
    if known is not None and known.identity != description.identity:
        check_features(folder, description, known.features or description.features)
        raise UserError(
            f"{run}: begun on corpus {known.identity}, {folder} is {description.identity}; "
            "set data.folder to the first one, or delete the run folder to begin again"
        )


def check_splits(folder: Path, description: Description, select_on: str) -> None:
    """Raises UserError where a split that a run needs has no caption."""
    held = [split for split, count in description.num_captions.items() if count]
    for split in ("train", select_on, "test"):
        if split not in held:
            cure = "set training.select_on=test, or " if split == "validation" else ""
            raise UserError(
                f"{folder}: no caption of split {split!r}; this corpus has {', '.join(held)}; "
                f"{cure}prepare a corpus that has it"
            )


def check_inputs(folder: Path, description: Description, data: Data, model: Model) -> None:
    """Raises UserError where images of another size were prepared than the experiment crops from, or where a frame has
    another width than the speech branch reads.

    Of original files (a short side of None), any size is made when they are read.
    """
    side, width = description.short_side, description.features["coefficients"]
    if side not in (None, data.short_side):
        raise UserError(
            f"{folder}: images were prepared with a short side of {side}, data.short_side is {data.short_side}; "
            f"set data.short_side={side} or prepare the corpus again"
        )
    if width != model.frame_features:
        raise UserError(
            f"{folder}: its frames have {width} coefficients, model.frame_features is {model.frame_features}; "
            f"set model.frame_features={width} or prepare the corpus with other features"
        )


def check_features(folder: Path, description: Description, features: dict[str, Any]) -> None:
    """Raises UserError where the corpus's frames are not of the kind, `features`, that a pair was trained on."""
    held = description.features
    if held != features:
        raise UserError(
            f"{folder}: it holds {_told(held, features)}, the pair was trained on {_told(features, held)}; "
            "give a corpus of the pair's features, or train another pair on this one"
        )


def _told(features: dict[str, Any], others: dict[str, Any]) -> str:
    """The kind of features, and what else of them differs from the others'."""
    different = [key for key in features if key != "kind" and features[key] != others.get(key)]
    details = ", ".join(f"{key} {features[key]}" for key in different)
    return f"{features.get('kind', 'unnamed')} frames" + (f" ({details})" if details else "")
