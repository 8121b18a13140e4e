"""The training of one stage of a run: epochs of steps, each epoch measured, recorded and checkpointed.

The same loop serves every corpus, one rank or many, a fresh start, a warm restart and a resume.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from sia.checkpoint.chosen import choose_checkpoint, damage_of
from sia.checkpoint.state import Progress
from sia.data.loader import no_worker_left_on_error, told_of_the_killed, training_loader
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.errors import UserError
from sia.imports import kept
from sia.run.folder import RunFolder, StageFolder, again
from sia.run.records import StagePlan
from sia.training.meter import Meter
from sia.training.preemption import PreemptionFlag, signals_blocked
from sia.training.recorder import Recorder
from sia.training.trainer import Trainer, build_trainer

LOOK, END = 1, 2


def train_stage(
    run: RunFolder,
    number: int,
    ranks: Ranks,
    flag: PreemptionFlag,
    corpus_folder: Path | None = None,
    confirm: Callable[[], None] = lambda: None,
) -> bool:
    """Train stage `number` of the run to its end, from its last checkpoint if it has one.

    corpus_folder: a copy of the run's corpus to read instead, such as one on the node's own disk.
    confirm: called before each write; it does not return where another job has taken the run over.
    Returns False where a signal asked for an end: a checkpoint was saved, and the stage goes on at the next batch.
    Raises UserError for a corpus or checkpoint that does not fit the run.
    """
    experiment = run.experiment()
    corpus = PreparedCorpus.open(corpus_folder or experiment.data.path)
    for split in ("train", experiment.training.select_on, "test"):
        # A split that is missing is found now, not after the days of training that need it.
        corpus.split(split)
    plan = StagePlan.read(run.stage(number).plan)
    if plan is None:
        raise UserError(f"{run.path}: stage {number} is not planned; submit its grid, or add it with jobs/resume.py")
    with kept():  # torchvision, and what Adam imports when it is made
        trainer = build_trainer(experiment, plan.stage, corpus, ranks, number)
    recorder = Recorder(run, number, plan.first_epoch, ranks.is_first, confirm)
    recorder.check_corpus(corpus)
    restored = ranks.first_says(latest_state(run.stage(number)) if ranks.is_first else None)
    if restored is not None:
        trainer.state.load(restored)
    elif plan.start_checkpoint is not None:
        start = ranks.first_says(sound_start(run, number, plan) if ranks.is_first else None)
        trainer.state.start_from(run.path / start, plan.stage.keep_moments)
    recorder.agree_with(trainer.state, restored)
    check_agreement(trainer, run)
    with no_worker_left_on_error(), recorder:
        return _train_epochs(trainer, recorder, flag)


def _train_epochs(trainer: Trainer, recorder: Recorder, flag: PreemptionFlag) -> bool:
    state, experiment = trainer.state, trainer.experiment
    pin = trainer.ranks.device.type == "cuda"
    loader = training_loader(trainer.dataset, state.sampler, experiment.runtime.num_workers, pin)
    while state.progress.epochs_done < trainer.stage.epochs:
        began = time.monotonic()
        epoch = recorder.first_epoch + state.progress.epochs_done
        if state.sampler.epoch != epoch:
            state.sampler.set_position(epoch)
        meter = Meter(trainer, recorder.first_epoch * len(state.sampler))
        with signals_blocked() if loader.num_workers else nullcontext():
            batches = iter(loader)
        for batch in meter.waiting(told_of_the_killed(batches)):
            is_due = meter.step(batch)
            # One word of all ranks: that any was told to end, or that the first one wants a look, or neither.
            word = trainer.ranks.largest(END if flag else LOOK if is_due else 0)
            if word:
                row = meter.look()
                if is_due:
                    recorder.steps_done(row)
            if word == END:
                _count_time(state.progress, began)
                recorder.save_partial(state)
                return False
        _end_epoch(trainer, recorder, epoch, began)
    recorder.stage_done(state)
    return True


def _end_epoch(trainer: Trainer, recorder: Recorder, epoch: int, began: float) -> None:
    state = trainer.state
    steps = len(state.sampler)
    learnt = {
        "train/loss": state.progress.loss_sum / steps,
        "train/learning_rate": trainer.schedule(state.progress.step - 1),
        **trainer.objective.measures(),
    }
    state.progress.epochs_done += 1
    state.progress.loss_sum = 0.0
    state.sampler.set_position(epoch + 1)
    learnt |= trainer.measure()
    _count_time(state.progress, began)
    seconds, state.progress.epoch_seconds = state.progress.epoch_seconds, 0.0
    recorder.epoch_done(state, epoch + 1, {**learnt, "train/seconds": seconds})
    trainer.ranks.barrier()


def _count_time(progress: Progress, began: float) -> None:
    seconds = time.monotonic() - began
    progress.seconds += seconds
    progress.epoch_seconds += seconds


def sound_start(run: RunFolder, number: int, plan: StagePlan) -> str:
    """The checkpoint that the stage starts from, by its path in the run folder; the plan is written anew where another
    stands in for a damaged one. Raises UserError where none does.
    """
    assert plan.start_checkpoint is not None
    if damage_of(run.path / plan.start_checkpoint) is None:
        return plan.start_checkpoint
    planned = number <= len(run.experiment().stages)
    stages = [number - 1] if planned else range(1, number)
    start = choose_checkpoint(run, plan.stage.start_from or "best", stages)
    path = str(start.path.relative_to(run.path))
    plan.model_copy(update={"start_checkpoint": path, "start_epoch": start.epoch}).write(run.stage(number).plan)
    return path


def latest_state(stage: StageFolder) -> Path | None:
    """The latest checkpoint of a stage that is whole; a line on stderr tells of each that is damaged.

    None where there is none: the stage begins anew, which a line tells where that loses epochs.
    """
    kept = sorted(stage.last.parent.glob("epoch-*.pt"), reverse=True)
    damaged = False
    for path in (stage.partial, stage.last, stage.previous, stage.best, *kept):
        if (fault := damage_of(path)) is None:
            if damaged:
                print(f"warning: {stage.path}: going on from {path.name}", file=sys.stderr, flush=True)
            return path
        if fault:
            damaged = True
            print(f"warning: {path}: {fault}", file=sys.stderr, flush=True)
    if damaged:
        print(f"warning: {stage.path}: no checkpoint is whole; beginning anew", file=sys.stderr, flush=True)
    return None


def check_agreement(trainer: Trainer, run: RunFolder) -> None:
    """Raises UserError, on every rank, where the ranks restored different states: a file server may lag on one node."""
    progress, sampler = trainer.state.progress, trainer.state.sampler
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in trainer.state.model.parameters())
    own = [progress.step, progress.epochs_done, sampler.epoch, sampler.next_batch, weights]
    if len(trainer.ranks.gather(torch.tensor([own], dtype=torch.float64)).unique(dim=0)) > 1:
        raise UserError(
            f"{run.path}: the ranks found different checkpoints (a slow file server?); "
            f"to go on: {again(run.study, run.name)}"
        )
