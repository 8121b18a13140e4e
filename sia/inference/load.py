"""From a run or an export to a pair that embeds."""

from pathlib import Path

import torch

from sia.checkpoint.state import load_chosen
from sia.distributed import Ranks
from sia.errors import UsageError, UserError
from sia.inference.export import read_export
from sia.inference.export_folder import is_export
from sia.inference.settings import settings_of_run
from sia.inference.trained_pair import TrainedPair
from sia.models.dual_encoder import DualEncoder
from sia.run.folder import RunFolder, find_run


def load(source: str | Path, checkpoint: str = "best", device: str | torch.device | None = None) -> TrainedPair:
    """The pair of a run (its folder or its name), or of a folder that jobs/export.py wrote.

    checkpoint: best, last or epoch=N of the run; an export holds one. device: default, the GPU where there is one.
    The prepared corpus is not needed. Raises UserError where run or checkpoint are not there, or do not fit.
    """
    folder = Path(source)
    if is_export(folder):
        return load_export(folder, checkpoint, device)
    return load_run(find_run(str(source)), checkpoint, device)


def load_run(run: RunFolder, checkpoint: str = "best", device: str | torch.device | None = None) -> TrainedPair:
    architecture = run.experiment().model
    network = DualEncoder.from_config(architecture)
    chosen = load_chosen(run, checkpoint, network, architecture)
    return TrainedPair(network, settings_of_run(run, chosen, checkpoint), chosen_device(device))


def load_export(folder: Path, checkpoint: str = "best", device: str | torch.device | None = None) -> TrainedPair:
    """Raises UsageError where another checkpoint is asked for than the one it holds."""
    settings, network = read_export(folder)
    held = settings.provenance
    if checkpoint not in ("best", held.get("checkpoint"), f"epoch={held.get('epoch')}"):
        raise UsageError(f"{folder}: holds epoch {held.get('epoch')} alone; export {checkpoint} from the run itself")
    return TrainedPair(network, settings, chosen_device(device))


def chosen_device(device: str | torch.device | None) -> torch.device:
    """Raises UserError for a device that torch does not know or that is not there."""
    if device is None:
        return Ranks.alone().device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"device {str(device)!r}: cannot be used here ({reason}); use cpu or leave it out") from None
