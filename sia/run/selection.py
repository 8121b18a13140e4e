"""What the best epoch, and the best trial, are chosen by. It loads no torch."""

from collections.abc import Mapping
from typing import Any

DIRECTIONS = ("speech_to_image", "image_to_speech")
SELECTING = ("validation", "test")  # the splits that may choose, the better one first


def selection_keys(split: str) -> tuple[str, str]:
    """The measures of a row of metrics.jsonl that choose where `training.select_on` is `split`."""
    speech_to_image, image_to_speech = (f"{split}/{direction}/R_at_10" for direction in DIRECTIONS)
    return speech_to_image, image_to_speech


def selected_on(row: Mapping[str, Any]) -> str:
    """The split that a row was measured on: validation where it holds that, else test, as in the paper's protocol.

    Raises ValueError for a row that holds neither.
    """
    for split in SELECTING:
        if all(key in row for key in selection_keys(split)):
            return split
    raise ValueError(f"a row of metrics.jsonl without R@10 on {' or '.join(SELECTING)}: {sorted(row)}")


def selecting_recalls(row: Mapping[str, Any]) -> tuple[float, float]:
    """R@10 of speech to image, and of image to speech, on the split that the row was measured on."""
    speech_to_image, image_to_speech = selection_keys(selected_on(row))
    return row[speech_to_image], row[image_to_speech]


def selection_value(row: Mapping[str, Any]) -> float:
    """The mean of both directions' R@10 on the split that chooses, of a row of metrics.jsonl."""
    return sum(selecting_recalls(row)) / len(DIRECTIONS)


def protocol(split: str) -> str:
    """`training.select_on` as tables tell it: an epoch chosen on test is measured on what it was chosen by."""
    return "test (the paper's protocol)" if split == "test" else split
