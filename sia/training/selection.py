"""What the best epoch, and the best trial, are chosen by. It loads no torch."""

from collections.abc import Mapping
from typing import Any

SELECTED_BY = ("validation/speech_to_image/R_at_10", "validation/image_to_speech/R_at_10")


def selection_value(row: Mapping[str, Any]) -> float:
    """The mean of both directions' R@10 on validation, of a row of metrics.jsonl."""
    return sum(row[key] for key in SELECTED_BY) / len(SELECTED_BY)
