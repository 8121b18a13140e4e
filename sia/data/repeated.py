"""What a corpus holds more than once: images under several ids, and recordings in several splits. It loads no torch."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sia.data.manifest import SpokenCaption

Content = tuple[int, int]  # CRC-32 and length: of 400,000 contents, less than one in a hundred corpora confuses two


class Repeated:
    """Finds equal contents among the rows of all shards; copies of a file differ in their paths, not in these."""

    def __init__(self) -> None:
        self.ids: dict[Content, set[str]] = defaultdict(set)
        self.spoken_in: dict[Content, set[str]] = defaultdict(set)
        self.shown_in: dict[str, set[str]] = defaultdict(set)

    def add(self, captions: Iterable[SpokenCaption], frames: Iterable[Content], images: dict[str, Content]) -> None:
        """The captions of a shard, the contents of their frames, and of each image by its id."""
        for caption, content in zip(captions, frames, strict=True):
            self.ids[images[caption.image_id]].add(caption.image_id)
            self.spoken_in[content].add(caption.split)
            self.shown_in[caption.image_id].add(caption.split)

    def counts(self) -> dict[str, Any]:
        """How many images have several ids, how many of these lie in several splits, and how many recordings do."""
        several = [sorted(ids) for ids in self.ids.values() if len(ids) > 1]
        shared = [ids for ids in several if len(set().union(*(self.shown_in[one] for one in ids))) > 1]
        return {
            "images": len(several),
            "images_in_several_splits": len(shared),
            "first_images": min(shared or several, default=[]),
            "recordings_in_several_splits": sum(len(splits) > 1 for splits in self.spoken_in.values()),
        }


def contents(crcs: np.ndarray, offsets: np.ndarray) -> Iterator[Content]:
    """The contents of a shard's rows."""
    return zip(crcs.tolist(), np.diff(offsets).tolist(), strict=True)


def told(counts: dict[str, Any]) -> list[str]:
    """Lines for a person; none where nothing is repeated."""
    lines = []
    if counts["images"]:
        named = " and ".join(repr(name) for name in counts["first_images"][:2])
        lines.append(
            f"warning: {counts['images']:,} images lie under several ids ({named}), and count as each other's "
            f"negatives; {counts['images_in_several_splits']:,} of them in several splits"
        )
    if counts["recordings_in_several_splits"]:
        lines.append(f"warning: {counts['recordings_in_several_splits']:,} recordings lie in several splits")
    return lines
