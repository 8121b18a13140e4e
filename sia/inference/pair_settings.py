"""All that a pair needs beside its weights: architecture, data settings, statistics, features; and which folder is, or
may become, an export of it. It loads no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sia.atomic import read_json
from sia.checkpoint.chosen import Chosen
from sia.config import Data, Model, validate
from sia.data.prepared_corpus import STATISTICS
from sia.errors import UsageError, UserError
from sia.run.folder import RunFolder
from sia.run.records import Finished, TrainedOn
from sia.run.row_files import read_rows

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # the two files of an export
EXPORT_FORMAT = "sia.pair"
EXPORT_VERSION = 1
# Of corpus.json; what else it tells, such as counts and folders, no embedding depends on.
CORPUS_KEYS = ("name", "identity", "features", *STATISTICS)


@dataclass(frozen=True)
class PairSettings:
    """corpus: the CORPUS_KEYS of the corpus trained on; provenance: whence the weights come."""

    model: Model
    data: Data
    corpus: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def features(self) -> dict[str, Any]:
        return self.corpus["features"]

    def to_json(self) -> dict[str, Any]:
        """The content of an export's config.json; `from_json` reads it back."""
        return {
            "format": EXPORT_FORMAT,
            "format_version": EXPORT_VERSION,
            "model": self.model.model_dump(mode="json"),
            # Where the corpus lay says nothing on another machine.
            "data": {**self.data.model_dump(mode="json"), "folder": ""},
            "corpus": self.corpus,
            "provenance": self.provenance,
        }

    @classmethod
    def from_json(cls, path: Path) -> "PairSettings":
        """Raises UserError that names a file which is missing or no export's config.json."""
        try:
            content = read_json(path)
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get("format") != EXPORT_FORMAT:
            raise UserError(f"{path}: not the config.json of an exported pair; run `python jobs/export.py RUN` again")
        if content.get("format_version") != EXPORT_VERSION:
            raise UserError(
                f"{path}: export version {content.get('format_version')}, this program reads {EXPORT_VERSION}; "
                "run `python jobs/export.py RUN` again"
            )
        model = validate(Model, content.get("model"), f"{path}: model")
        data = validate(Data, content.get("data"), f"{path}: data")
        return cls(model, data, _checked_corpus(path, content.get("corpus"), data), content.get("provenance", {}))


def settings_of_run(run: RunFolder, chosen: Chosen, checkpoint: str) -> PairSettings:
    """Raises UserError for a run whose corpus.json is missing or lacks what an embedding needs."""
    experiment = run.experiment()
    trained_on = TrainedOn.read(run.corpus)
    corpus = _checked_corpus(run.corpus, trained_on and trained_on.description, experiment.data)
    return PairSettings(experiment.model, experiment.data, corpus, _provenance(run, chosen, checkpoint))


def _checked_corpus(path: Path, corpus: Any, data: Data) -> dict[str, Any]:
    needed = ["features"]
    needed += ["pixel_mean", "pixel_std"] if data.normalisation == "corpus" else []
    needed += ["frame_mean", "frame_std"] if data.standardise_frames else []
    missing = [key for key in needed if not (corpus or {}).get(key)]
    if missing:
        raise UserError(f"{path}: says nothing of {missing[0]!r} of the corpus trained on; train the run again")
    return {key: corpus[key] for key in CORPUS_KEYS if key in corpus}


def _provenance(run: RunFolder, chosen: Chosen, checkpoint: str) -> dict[str, Any]:
    experiment = run.experiment()
    jobs = read_rows(run.provenance)
    finished = Finished.read(run.finished)
    # Recall on test was measured with the run's best checkpoint, and tells of no other.
    of_best = finished and (finished.best_stage, finished.best_epoch) == (chosen.stage, chosen.epoch)
    return {
        "run": run.name,
        "study": run.study,
        "signature": experiment.signature,
        "checkpoint": checkpoint,
        "stage": chosen.stage,
        "epoch": chosen.epoch,
        "select_on": experiment.training.select_on,
        "selection_value": chosen.value,
        "test": finished.test if finished and of_best else None,
        "test_pool": [finished.num_test_captions, finished.num_test_images] if finished and of_best else None,
        "git_commit": jobs[-1].get("git_commit") if jobs else None,
    }


def is_export(folder: Path) -> bool:
    """Whether the folder holds an exported pair, whole or not."""
    return (folder / WEIGHTS).is_file()


def check_export_folder(out: Path) -> None:
    """Raises UserError where `out` is a file, or a folder of something else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is there; give the folder of an export with --out")
    for name in sorted(path.name for path in out.iterdir()) if out.exists() else []:
        # What a killed export left is its own.
        if name not in (WEIGHTS, CONFIG) and not name.startswith((f".{WEIGHTS}.", f".{CONFIG}.")):
            raise UserError(f"{out}: holds {name!r}, no export does; give a new folder with --out")


def depth_of(layer: str, gru_layers: int) -> int:
    """How many GRU layers stand before the output of conv, gru1, ..., gruN. Raises UsageError that lists the layers."""
    names = ["conv", *(f"gru{number}" for number in range(1, gru_layers + 1))]
    if layer not in names:
        raise UsageError(f"--layer {layer}: this pair has no such layer; use one of {', '.join(names)}")
    return names.index(layer)
