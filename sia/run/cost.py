"""What a run costs: time, GPU-hours and checkpoints, from a step that was measured. It loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sia.atomic import read_json
from sia.config import Experiment
from sia.models.sizes import image_parameters, speech_parameters
from sia.run.folder import REHEARSAL, run_of

WEIGHT_BYTES, STATE_BYTES = 4, 12  # of a parameter in float32: alone, and with Adam's two moments
LOOK_SHARE = 1 / 3  # what a caption that is only embedded takes of one that is learnt from: no backward pass
BANDWIDTH = 10.0
EMBEDDED = "scenes"  # the corpus that rehearsals take, too


@dataclass(frozen=True)
class Pace:
    """A step that was measured: seconds, captions of all ranks, and on what."""

    seconds: float
    captions: int
    ranks: int = 1
    device: str = "CPU"
    cores: int = 1  # of a rank

    @property
    def unit(self) -> str:
        return "core-hours" if self.device.startswith("CPU") else "GPU-hours"


@dataclass(frozen=True)
class Cost:
    """Of a run, waiting in queues and the starts of its jobs left out."""

    hours: float
    device_hours: float  # of GPUs, or of cores


def rehearsed(study: str, experiment: Experiment, cores: int) -> Pace | None:
    """The step of the run's rehearsal, where it has had one."""
    found = read_json(run_of(f"{study}{REHEARSAL}", rehearsal_of(experiment)).rehearsal)
    if found is None:
        return None
    return Pace(found["seconds_a_step"], found["batch_size"], found["world_size"], found["device"], cores)


def rehearsal_of(experiment: Experiment, corpus: Path | None = None) -> Experiment:
    """What is rehearsed of it: one stage, on the embedded corpus. corpus: where that lies."""
    values = experiment.model_dump(mode="json")
    values["stages"] = [{"epochs": 1}]
    values["data"] |= {"corpus": EMBEDDED, "folder": str(corpus.absolute()) if corpus else ""}
    return Experiment.model_validate(values)


def captions_of(experiment: Experiment) -> dict[str, int] | None:
    """How many captions each split of its corpus has; None where that is not prepared."""
    found = read_json(experiment.data.path / "corpus.json")
    return None if found is None else found["num_captions"]


def exchanged_bytes(experiment: Experiment, captions: int, ranks: int) -> float:
    """What a rank sends in a step: the gradient around a ring, twice but for its own part, and embeddings."""
    gradient = 2 * WEIGHT_BYTES * parameters(experiment)
    embeddings = 2 * WEIGHT_BYTES * captions * experiment.model.latent_size
    return (gradient + embeddings) * (ranks - 1) / ranks


def cost(experiment: Experiment, captions: Mapping[str, int], pace: Pace, ranks: int, bandwidth: float) -> Cost:
    """Of the run on so many ranks. bandwidth: GB a second between them. Arithmetic is taken to grow with captions."""
    training, batch = experiment.training, experiment.training.batch_size
    exchange_then = exchanged_bytes(experiment, pace.captions, pace.ranks) / bandwidth / 1e9
    a_caption = max(0.0, pace.seconds - exchange_then) * pace.ranks / pace.captions  # rank-seconds
    step = a_caption * batch / ranks + exchanged_bytes(experiment, batch, ranks) / bandwidth / 1e9
    looked_at = captions[training.select_on] + min(training.train_recall_sample, captions["train"])
    epoch = captions["train"] // batch * step + LOOK_SHARE * a_caption * looked_at / ranks
    seconds = epochs(experiment) * epoch + LOOK_SHARE * a_caption * captions["test"] / ranks
    cores = 1 if pace.unit == "GPU-hours" else pace.cores
    return Cost(seconds / 3600, seconds / 3600 * ranks * cores)


def checkpoint_gb(experiment: Experiment) -> float:
    """The most that its checkpoints take: best and last of each stage, the one before the last, and weights kept."""
    every = experiment.runtime.keep_every_epochs
    whole = 2 * len(experiment.stages) + 1
    kept = epochs(experiment) // every if every else 0
    return parameters(experiment) * (whole * STATE_BYTES + kept * WEIGHT_BYTES) / 1e9


def parameters(experiment: Experiment) -> int:
    return speech_parameters(experiment.model) + image_parameters(experiment.model)


def epochs(experiment: Experiment) -> int:
    return sum(stage.epochs for stage in experiment.stages)


def in_words(hours: float) -> str:
    """'3.2 d', '4.5 h', '7.1 min' or '2.0 s'."""
    units = ((24.0, "d"), (1.0, "h"), (1 / 60, "min"))
    size, unit = next(((size, unit) for size, unit in units if hours >= size), (1 / 3600, "s"))
    return f"{hours / size:,.1f} {unit}"
