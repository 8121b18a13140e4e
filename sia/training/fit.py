"""The training of one stage of a run: epochs of steps, each epoch measured, recorded and checkpointed.

The same loop serves every corpus, one rank or many, a fresh start, a warm restart and a resume.
"""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sia.config import Experiment, Stage
from sia.data.images import normalise
from sia.data.loader import Batch, PairDataset, training_loader
from sia.data.manifest import SPLITS
from sia.data.prepared import PreparedCorpus, check_short_side
from sia.data.sampler import BucketBatchSampler
from sia.distributed import Ranks, gather_with_gradient
from sia.errors import UserError
from sia.evaluate import Embedder, fixed_sample, pixel_statistics, recalls
from sia.losses import hinge
from sia.models import DualEncoder
from sia.progress import tracked
from sia.run_folder import RunFolder, StageFolder
from sia.schedules import Schedule, calr, calwr
from sia.training.checkpoint import Progress, TrainingState
from sia.training.preemption import PreemptionFlag, signals_blocked
from sia.training.record import Recorder, read_stage_plan


@dataclass
class Trainer:
    """One stage's model, data and state on this rank."""

    experiment: Experiment
    stage: Stage
    corpus: PreparedCorpus
    ranks: Ranks
    state: TrainingState
    network: torch.nn.Module  # the model, wrapped for several ranks
    schedule: Schedule
    bf16: bool
    dataset: PairDataset
    pixel_mean: Tensor = field(init=False)
    pixel_std: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.pixel_mean, self.pixel_std = pixel_statistics(self.experiment.data, self.corpus, self.ranks.device)

    def loss(self, batch: Batch) -> Tensor:
        """The hinge of the whole batch, over all ranks; every rank computes the same value."""
        device = self.ranks.device
        images = normalise(batch.images.to(device, non_blocking=True), self.pixel_mean, self.pixel_std)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            speech, image = self.network(batch.frames.to(device, non_blocking=True), batch.num_frames, images)
        return batch_loss(speech, image, batch.image_ids.to(device), self.experiment, self.ranks)

    def step(self, batch: Batch) -> float:
        optimizer, progress = self.state.optimizer, self.state.progress
        for group in optimizer.param_groups:
            group["lr"] = self.schedule(progress.step)
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise UserError(f"loss is {loss.item()} at step {progress.step}; lower optimizer.learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.experiment.optimizer.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.experiment.optimizer.gradient_clip)
        optimizer.step()
        return loss.item()

    def measure(self) -> dict[str, float]:
        """Recall of the validation split, and of a fixed sample of the training split."""
        training = self.experiment.training
        # Each rank's last step moved its own statistics; unshared, ranks would embed with different models.
        self.ranks.share_buffers(self.state.model)
        queries = {"validation": self.corpus.split("validation")}
        if training.train_recall_sample:
            train = self.corpus.split("train")
            queries["train"] = fixed_sample(train, training.train_recall_sample, training.seed)
        return recalls(self.embedder(), queries)

    def embedder(self) -> Embedder:
        batch_size = self.experiment.runtime.evaluation_batch_size
        data, model = self.experiment.data, self.state.model
        assert isinstance(model, DualEncoder)
        return Embedder(model, self.corpus, data, self.ranks, batch_size, self.bf16)


def train_stage(run: RunFolder, number: int, ranks: Ranks, flag: PreemptionFlag) -> bool:
    """Train stage `number` of the run to its end, from its last checkpoint if it has one.

    Returns False where a signal asked for an end: a checkpoint was saved, and the stage goes on at the next batch.
    Raises UserError for a corpus or checkpoint that does not fit the run.
    """
    experiment = run.experiment()
    corpus = PreparedCorpus.open(experiment.data.path)
    for split in SPLITS:
        # A split that is missing is found now, not after the days of training that need it.
        corpus.split(split)
    plan = read_stage_plan(run, number)
    trainer = build_trainer(experiment, plan.stage, corpus, ranks, number)
    recorder = Recorder(run, number, plan.first_epoch, ranks.is_first)
    recorder.check_corpus(corpus)
    _restore(trainer, run.stage(number), run, plan.start_checkpoint)
    recorder.agree_with(trainer.state)
    check_agreement(trainer, run)
    return _train_epochs(trainer, recorder, flag)


def build_trainer(
    experiment: Experiment, stage: Stage, corpus: PreparedCorpus, ranks: Ranks, number: int = 1
) -> Trainer:
    """A freshly initialised pair and all that trains it; equal on all ranks."""
    training = experiment.training
    check_short_side(corpus.folder, corpus.description, experiment.data)
    # 1. Initialisation depends on the seed alone.
    torch.manual_seed(training.seed)
    model = DualEncoder.from_config(experiment.model).to(ranks.device)
    # 2. Synchronised statistics replace the layers before the optimizer and DDP see the parameters.
    if training.batch_norm == "sync":
        model = _synchronised(model, ranks)
    optimizer = torch.optim.Adam(
        model.parameters(), experiment.optimizer.learning_rate, weight_decay=experiment.optimizer.weight_decay
    )
    dataset = PairDataset(corpus, experiment)
    sampler = BucketBatchSampler(
        dataset.lengths,
        training.batch_size,
        training.seed,
        experiment.data.bucket_size,
        ranks.rank,
        ranks.world_size,
    )
    state = TrainingState(model, optimizer, sampler, Progress(number), experiment.model)
    network = DistributedDataParallel(model) if ranks.world_size > 1 else model
    schedule = schedule_of(experiment, stage, len(sampler))
    return Trainer(experiment, stage, corpus, ranks, state, network, schedule, uses_bf16(experiment, ranks), dataset)


def batch_loss(speech: Tensor, image: Tensor, image_ids: Tensor, experiment: Experiment, ranks: Ranks) -> Tensor:
    """This rank's embeddings [B, D] and image ids [B] -> the loss of the batch gathered over all ranks."""
    speech = gather_with_gradient(speech.float() if speech.dtype != torch.float64 else speech, ranks.world_size)
    image = gather_with_gradient(image.float() if image.dtype != torch.float64 else image, ranks.world_size)
    image_ids = ranks.gather(image_ids)  # [G]
    similarities = speech @ image.T  # [G, G]
    loss = hinge(similarities, image_ids[:, None] == image_ids[None, :], experiment.loss.margin)
    return loss * len(similarities) if experiment.loss.normaliser == "sum" else loss


def schedule_of(experiment: Experiment, stage: Stage, steps_an_epoch: int) -> Schedule:
    rate = experiment.optimizer.learning_rate * stage.lr_scale
    if stage.schedule == "calr":
        return calr(rate, stage.epochs * steps_an_epoch)
    return calwr(rate, stage.first_cycle_epochs * steps_an_epoch, stage.multiplier)


def _train_epochs(trainer: Trainer, recorder: Recorder, flag: PreemptionFlag) -> bool:
    state, experiment = trainer.state, trainer.experiment
    pin = trainer.ranks.device.type == "cuda"
    loader = training_loader(trainer.dataset, state.sampler, experiment.runtime.num_workers, pin)
    while state.progress.epochs_done < trainer.stage.epochs:
        began = time.monotonic()
        epoch = recorder.first_epoch + state.progress.epochs_done
        if state.sampler.epoch != epoch:
            state.sampler.set_position(epoch)
        label = f"stage {recorder.number}, epoch {epoch + 1} of {recorder.first_epoch + trainer.stage.epochs}"
        done = state.sampler.next_batch
        every = experiment.runtime.log_every_seconds if trainer.ranks.is_first else float("inf")
        with signals_blocked():
            batches = iter(loader)
        for batch in tracked(batches, label, len(state.sampler), every, done):
            state.progress.loss_sum += trainer.step(batch)
            state.progress.step += 1
            state.sampler.next_batch += 1
            if trainer.ranks.any(bool(flag)):
                state.progress.seconds += time.monotonic() - began
                recorder.save_last(state)
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
    }
    state.progress.epochs_done += 1
    state.progress.loss_sum = 0.0
    state.sampler.set_position(epoch + 1)
    learnt |= trainer.measure()
    seconds = time.monotonic() - began
    state.progress.seconds += seconds
    recorder.epoch_done(state, epoch + 1, {**learnt, "train/seconds": seconds})
    trainer.ranks.barrier()


def _restore(trainer: Trainer, stage: StageFolder, run: RunFolder, start_checkpoint: str | None) -> None:
    if stage.last.exists():
        trainer.state.load(stage.last)
    elif start_checkpoint is not None:
        trainer.state.start_from(run.path / start_checkpoint, trainer.stage.keep_moments)


def check_agreement(trainer: Trainer, run: RunFolder) -> None:
    """Raises UserError, on every rank, where the ranks restored different states: a file server may lag on one node."""
    progress, sampler = trainer.state.progress, trainer.state.sampler
    weights = sum(float(parameter.detach().double().abs().sum()) for parameter in trainer.state.model.parameters())
    own = [progress.step, progress.epochs_done, sampler.epoch, sampler.next_batch, weights]
    if len(trainer.ranks.gather(torch.tensor([own], dtype=torch.float64)).unique(dim=0)) > 1:
        raise UserError(
            f"{run.path}: the ranks found different checkpoints (a slow file server?); submit the run again"
        )


def _synchronised(model: DualEncoder, ranks: Ranks) -> DualEncoder:
    if ranks.device.type != "cuda":
        raise UserError("training.batch_norm sync needs GPUs: PyTorch has no such layer for the CPU; set it to local")
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted, DualEncoder)
    return converted


def uses_bf16(experiment: Experiment, ranks: Ranks) -> bool:
    """Whether to compute in bf16: where asked to, or on a GPU that has it, not one that emulates it."""
    wanted = experiment.training.precision
    has_it = ranks.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return wanted == "bf16" or (wanted == "auto" and has_it)
