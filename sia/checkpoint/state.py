"""All that survives a restart, in files that are whole or absent."""

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sia.atomic import write_atomically
from sia.checkpoint.background import PastTheCache
from sia.checkpoint.chosen import Chosen, no_checkpoint, sound_checkpoints
from sia.config import Model, flatten
from sia.data.sampler import BucketBatchSampler
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.selection import selection_value

CHECKPOINT_VERSION = 3


@dataclass
class Progress:
    """How far a stage has come; plain numbers and text only."""

    stage: int
    epochs_done: int = 0  # of this stage
    step: int = 0  # of this stage; the schedule is a function of it
    loss_sum: float = 0.0  # over the steps of the epoch that is under way
    seconds: float = 0.0  # spent in this stage, over all of its jobs
    epoch_seconds: float = 0.0  # of these, spent in the epoch that is under way
    best_value: float = float("-inf")
    best_epoch: int = 0  # of the whole run, from 1
    rows: list[dict[str, Any]] = field(default_factory=list)  # metrics.jsonl's rows of this stage


class TrainingState:
    """Model, objective, optimizer, sampler, progress and random states: what a restart of a stage goes on with.

    Not restored: the number of ranks and threads, the device, and the workers' prefetched batches. The learning rate
    needs no state, it follows from the step. Whether a file is as it was written, its own checksums tell: see
    sia.checkpoint.chosen.damage_of.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sampler: BucketBatchSampler,
        progress: Progress,
        architecture: Model,
        objective: nn.Module | None = None,
    ) -> None:
        self.model, self.optimizer, self.sampler, self.progress = model, optimizer, sampler, progress
        self.architecture = architecture
        self.objective = objective or nn.Module()

    def save(self, path: Path) -> None:
        """Write everything; `load` reads it back."""
        write_checkpoint(path, self.content())

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds, its tensors not copied."""
        return {
            "checkpoint_version": CHECKPOINT_VERSION,
            "architecture": self.architecture.model_dump(),
            "stage": self.progress.stage,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "sampler": self.sampler.state_dict(),
            "progress": vars(self.progress),
            "random": _random_states(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, path: Path) -> None:
        """Go on where `path` was saved; without Adam's moments where it holds none, which a line on stderr says.

        Raises UserError for another architecture or a damaged file.
        """
        content = read_checkpoint(path, self.architecture)
        self._load_weights(content)
        if "optimizer" in content:
            self._load_moments(content["optimizer"])
        else:
            print(f"warning: {path} holds no Adam moments; they begin anew", file=sys.stderr, flush=True)
        self.sampler.load_state_dict(content["sampler"])
        self.progress.__dict__.update(content["progress"])
        _set_random_states(content["random"])

    def start_from(self, path: Path, keep_moments: bool) -> None:
        """A warm restart: take the weights of another stage's checkpoint, and Adam's moments where asked to."""
        content = read_checkpoint(path, self.architecture)
        self._load_weights(content)
        if keep_moments:
            if "optimizer" not in content:
                raise UserError(f"{path}: holds no Adam moments; set keep_moments: false or start from best or last")
            self._load_moments(content["optimizer"])

    def _load_moments(self, saved: dict[str, Any]) -> None:
        """How Adam computes is this program's choice, not the file's: earlier versions took another way."""
        own = self.optimizer.state_dict()["param_groups"]
        groups = [{**group, "fused": mine["fused"]} for group, mine in zip(saved["param_groups"], own, strict=True)]
        self.optimizer.load_state_dict({**saved, "param_groups": groups})

    def _load_weights(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        self.objective.load_state_dict(content["objective"])


def write_checkpoint(path: Path, content: dict[str, Any], confirm: Callable[[], None] = lambda: None) -> None:
    """Write a state's content; confirm: called right before the file counts.

    Raises UserError for weights that are no numbers: they never take the place of good ones.
    """
    sums = [value.sum() for value in content["model"].values() if value.is_floating_point()]
    if not torch.stack(sums).isfinite().all():
        steps = content["progress"]["step"]
        raise UserError(f"weights are no numbers after {steps} steps; lower optimizer.learning_rate")

    def fill(stream: Any) -> None:
        past: Any = PastTheCache(stream.fileno())  # torch asks a stream for no more than `write` and `flush`
        torch.save(content, past)

    write_atomically(path, fill, confirm=confirm)


def without_moments(content: dict[str, Any]) -> dict[str, Any]:
    """All but Adam's moments: a third of the size."""
    return {name: part for name, part in content.items() if name != "optimizer"}


def read_checkpoint(path: Path, architecture: Model) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Raises UserError that names the file where it does not fit `architecture`."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, found = content["checkpoint_version"], Model(**content["architecture"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; `python jobs/status.py` lists what a run has trained") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; let this user read it, or see to its disk") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a checkpoint of this program ({reason}); use another one") from None
    if version != CHECKPOINT_VERSION:
        raise UserError(f"{path}: checkpoint version {version}, this program reads {CHECKPOINT_VERSION}; train again")
    if found != architecture:
        raise UserError(
            f"{path}: a checkpoint of {_differences(found, architecture)}; use one of the same architecture"
        )
    return content


def load_chosen(run: RunFolder, wanted: str, model: nn.Module, architecture: Model) -> Chosen:
    """Put the weights of best, last or epoch=N into `model`; which epoch they are of, by the file itself.

    A job that trains, or was killed, may be an epoch ahead of its rows. Raises as `choose_checkpoint` does.
    """
    stages = range(1, len(run.planned_stages()) + 1)
    for chosen in sound_checkpoints(run, wanted, stages):
        content = read_checkpoint(chosen.path, architecture)
        row = content["progress"]["rows"][-1]
        if row["epoch"] == chosen.epoch or wanted in ("best", "last"):
            model.load_state_dict(content["model"])
            return chosen._replace(epoch=row["epoch"], value=selection_value(row))
    raise no_checkpoint(run, wanted, stages)


def _differences(found: Model, wanted: Model) -> str:
    old, new = flatten(found.model_dump()), flatten(wanted.model_dump())
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"model.{key} {old.get(key)} (this run has {new.get(key)})" for key in keys)


def _random_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
