"""From a run or an export to a pair that embeds, and from a pair to an export."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sia.atomic import write_atomically, write_json
from sia.checkpoint.state import load_chosen
from sia.distributed import Ranks
from sia.errors import UsageError, UserError
from sia.inference.pair_settings import CONFIG, WEIGHTS, PairSettings, check_export_folder, is_export, settings_of_run
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
    """Raises UsageError where another checkpoint is asked for than the one it holds, UserError that names a file which
    is missing, damaged, or of another architecture.
    """
    settings = PairSettings.from_json(folder / CONFIG)
    held = settings.provenance
    if checkpoint not in ("best", held.get("checkpoint"), f"epoch={held.get('epoch')}"):
        raise UsageError(f"{folder}: holds epoch {held.get('epoch')} alone; export {checkpoint} from the run itself")
    network, path = DualEncoder.from_config(settings.model), folder / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not the weights of its config.json ({reason}); export the run again") from None
    return TrainedPair(network, settings, chosen_device(device))


def write_export(pair: TrainedPair, out: Path) -> None:
    """Write the pair into `out`; `sia.load(out)` reads it back. Raises UserError for a folder that holds other things.

    config.json is the last to be written and the first to go: with it, the folder is whole.
    """
    check_export_folder(out)
    tensors = {name: value.detach().cpu().contiguous() for name, value in pair.network.state_dict().items()}
    content = save(tensors, metadata={"format": "pt"})
    (out / CONFIG).unlink(missing_ok=True)
    write_atomically(out / WEIGHTS, lambda stream: stream.write(content))
    write_json(out / CONFIG, pair.settings.to_json())


def chosen_device(device: str | torch.device | None) -> torch.device:
    """Raises UserError for a device that torch does not know or that is not there."""
    if device is None:
        return Ranks.alone().device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"device {str(device)!r}: cannot be used here ({reason}); use cpu or leave it out") from None
