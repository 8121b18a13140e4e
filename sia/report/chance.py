"""What a pair that has learnt nothing would reach."""

from collections.abc import Mapping
from math import prod

Chances = Mapping[str, float]  # R@10 by direction, from 0 to 1


def chance(num_captions: int, num_images: int, k: int = 10) -> Chances:
    """R@k of guesses among so many images, and among so many captions, as many of each image."""
    right = max(1.0, num_captions / num_images)
    wrong = prod(max(0.0, (num_captions - right - place) / max(1, num_captions - place)) for place in range(k))
    return {"speech_to_image": min(1.0, k / num_images), "image_to_speech": 1 - wrong}
