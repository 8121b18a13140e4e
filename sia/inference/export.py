"""A run's checkpoint as a folder of two files: model.safetensors, and config.json with all else that it needs."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sia.atomic import write_atomically, write_json
from sia.errors import UserError
from sia.inference.export_folder import CONFIG, WEIGHTS, check_export_folder
from sia.inference.settings import PairSettings
from sia.models.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from sia.inference.trained_pair import TrainedPair


def write_export(pair: "TrainedPair", out: Path) -> None:
    """Write the pair into `out`; `sia.load(out)` reads it back. Raises UserError for a folder that holds other things.

    config.json is the last to be written and the first to go: with it, the folder is whole.
    """
    check_export_folder(out)
    tensors = {name: value.detach().cpu().contiguous() for name, value in pair.network.state_dict().items()}
    content = save(tensors, metadata={"format": "pt"})
    (out / CONFIG).unlink(missing_ok=True)
    write_atomically(out / WEIGHTS, lambda stream: stream.write(content))
    write_json(out / CONFIG, pair.settings.to_json())


def read_export(folder: Path) -> tuple[PairSettings, DualEncoder]:
    """Raises UserError that names a file which is missing, damaged, or of another architecture."""
    settings = PairSettings.from_json(folder / CONFIG)
    network = DualEncoder.from_config(settings.model)
    path = folder / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not the weights of its config.json ({reason}); export the run again") from None
    return settings, network
