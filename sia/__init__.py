"""Speech-image semantic alignment without any prior classification task, at the scale of a cluster."""

TYPE_CHECKING = False  # not from typing, which takes a Ctrl-C's time to be loaded

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from sia.inference.trained_pair import TrainedPair

__version__ = "0.1.0"


def load(source: "str | Path", checkpoint: str = "best", device: "str | torch.device | None" = None) -> "TrainedPair":
    """The pair of a run, or of an exported folder, ready to embed single recordings and images.

    source: a run's folder or name, or a folder of jobs/export.py; checkpoint: best, last or epoch=N; device: default,
    the GPU where there is one. Raises UserError where they are not there or do not fit.
    """
    # Torch takes seconds to import, and most of this package does without it.
    from sia.inference.load import load as load_pair

    return load_pair(source, checkpoint, device)
