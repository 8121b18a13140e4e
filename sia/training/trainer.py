"""One stage's pair on this rank, and one step of its training."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm

from sia.checkpoint.state import Progress, TrainingState
from sia.config import Experiment, Stage
from sia.data.images import normalise
from sia.data.loader import Batch, PairDataset
from sia.data.prepared_corpus import PreparedCorpus, check_inputs
from sia.data.sampler import BucketBatchSampler, check_chunk_size
from sia.distributed import Ranks
from sia.embedding import Embedder, fixed_sample, pixel_statistics, recalls, uses_bf16
from sia.models.dual_encoder import DualEncoder
from sia.schedules import Rate, warmup
from sia.training.batch_loss import Objective, batch_loss
from sia.training.batch_norm import synchronise
from sia.training.gradient import Pair, backward, backward_in_chunks, chunks_of, kept_buffers


@dataclass
class Trainer:
    """One stage's model, data and state on this rank."""

    experiment: Experiment
    stage: Stage
    corpus: PreparedCorpus
    ranks: Ranks
    state: TrainingState
    objective: Objective
    network: torch.nn.Module  # the model, wrapped for several ranks
    schedule: Rate
    bf16: bool
    dataset: PairDataset
    pixel_mean: Tensor = field(init=False)
    pixel_std: Tensor = field(init=False)
    sound: Tensor = field(init=False)  # [B], of the last step: which pairs have a similarity that is a number
    gradient_norm: Tensor = field(init=False)  # of the last step, before it is clipped; NaN where not asked for

    def __post_init__(self) -> None:
        self.pixel_mean, self.pixel_std = pixel_statistics(self.experiment.data, self.corpus, self.ranks.device)

    def step(self, batch: Batch, measure_norm: bool = False) -> Tensor:
        """One step of the optimizer; the batch's loss, a scalar on the device, which is not waited for."""
        optimizer, step = self.state.optimizer, self.state.progress.step
        for group in optimizer.param_groups:
            group["lr"] = self.schedule(step)
        optimizer.zero_grad(set_to_none=True)
        loss = self._backward(self._on_device(batch))
        self.ranks.average_gradients(self.objective)
        weights = list(self.network.parameters())
        if (limit := self.experiment.optimizer.gradient_clip) is not None:
            self.gradient_norm = clip_grad_norm_(weights, limit)
        elif measure_norm:
            self.gradient_norm = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        else:
            self.gradient_norm = loss.new_full((), float("nan"))
        optimizer.step()
        self.objective.keep_in_bounds()
        return loss

    def embed(self, batch: Batch) -> Pair:
        """Unit embeddings [B, D] of this rank's captions and images, which lie on its device."""
        images = normalise(batch.images, self.pixel_mean, self.pixel_std)
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16):
            speech, image = self.network(batch.frames, batch.num_frames, images)
        return speech, image

    def _on_device(self, batch: Batch) -> Batch:
        """All but the numbers of frames, which are read here; what the loader has pinned goes without waiting."""
        frames, images, ids = (
            column.to(self.ranks.device, non_blocking=True) for column in (batch.frames, batch.images, batch.image_ids)
        )
        return Batch(frames, batch.num_frames, images, ids)

    def _backward(self, batch: Batch) -> Tensor:
        chunk_size, loss_of = self.experiment.training.chunk_size, partial(self._loss_of, batch)
        if chunk_size is None or chunk_size >= self.experiment.training.batch_size:
            return backward(self.embed, loss_of, batch)
        return backward_in_chunks(self.embed, loss_of, chunks_of(batch, chunk_size, self.ranks), self.network)

    def _loss_of(self, batch: Batch, speech: Tensor, image: Tensor) -> Tensor:
        self.sound = (speech * image).detach().sum(dim=1).isfinite()
        return batch_loss(speech, image, batch.image_ids, self.objective, self.ranks, self.state.progress.step)

    def measure(self) -> dict[str, float]:
        """Recall of the split that selects the best epoch, and of a fixed sample of the training split."""
        training = self.experiment.training
        # With local statistics each rank's last step moved its own; unshared, ranks would embed with different models.
        self.ranks.share(self.state.model.buffers())
        queries: dict[str, list[int]] = {training.select_on: self.corpus.split(training.select_on)}
        if training.train_recall_sample:
            train = self.corpus.split("train")
            queries["train"] = fixed_sample(train, training.train_recall_sample, training.seed)
        batch_size, model = self.experiment.runtime.evaluation_batch_size, self.state.model
        assert isinstance(model, DualEncoder)
        embedder = Embedder(model, self.corpus, self.experiment.data, self.ranks, batch_size, self.bf16)
        return recalls(embedder, queries)


def build_trainer(
    experiment: Experiment, stage: Stage, corpus: PreparedCorpus, ranks: Ranks, number: int = 1
) -> Trainer:
    """A freshly initialised pair and all that trains it; equal on all ranks."""
    training = experiment.training
    check_inputs(corpus.folder, corpus.description, experiment.data, experiment.model)
    # 1. Initialisation depends on the seed alone.
    torch.manual_seed(training.seed)
    model = DualEncoder.from_config(experiment.model).to(ranks.device)
    objective = Objective(experiment.loss, training.seed, number).to(ranks.device)
    # 2. Synchronised statistics replace the layers before the optimizer and DDP see the parameters.
    if training.batch_norm == "sync" and ranks.world_size > 1:
        synchronise(model, ranks)
    if training.recompute:
        from sia.training.recompute import recompute  # it loads all of torchvision

        recompute(model)
    optimizer = _optimizer(experiment, model, objective)
    dataset = PairDataset(corpus, experiment)
    bucket_size, place = experiment.data.bucket_size, (ranks.rank, ranks.world_size)
    check_chunk_size(training.chunk_size, ranks.world_size)
    sampler = BucketBatchSampler(dataset.lengths, training.batch_size, training.seed, bucket_size, *place)
    state = TrainingState(model, optimizer, sampler, Progress(number), experiment.model, objective)
    network = _distributed(model, experiment) if ranks.world_size > 1 else model
    schedule, bf16 = schedule_of(experiment, stage, len(sampler)), uses_bf16(experiment, ranks)
    return Trainer(experiment, stage, corpus, ranks, state, objective, network, schedule, bf16, dataset)


def _optimizer(experiment: Experiment, model: DualEncoder, objective: Objective) -> torch.optim.Optimizer:
    groups = [{"params": list(model.parameters()), "weight_decay": experiment.optimizer.weight_decay}]
    if learned := list(objective.parameters()):
        # Decay would pull a temperature towards 1.
        groups.append({"params": learned, "weight_decay": 0.0})
    return torch.optim.Adam(groups, experiment.optimizer.learning_rate, fused=True)


def schedule_of(experiment: Experiment, stage: Stage, steps_an_epoch: int) -> Rate:
    """The stage's learning rate by its own steps, from 0."""
    rate = experiment.optimizer.learning_rate * stage.lr_scale
    return warmup(stage.schedule.build(rate, stage.epochs, steps_an_epoch), stage.warmup_steps)


def _distributed(model: DualEncoder, experiment: Experiment) -> DistributedDataParallel:
    """The model with its gradient averaged over the ranks, summed in the same order in every job of a run.

    After its first backward pass PyTorch arranges its buckets of gradients anew. With more than two ranks the place in
    a bucket decides how a sum is rounded, so that pass is taken here, on noise, and not in each job's first step.
    """
    network = DistributedDataParallel(model)
    chance, crop = torch.Generator().manual_seed(0), experiment.data.crop_size
    frames = torch.rand(2, 64, experiment.model.frame_features, generator=chance)
    images = torch.rand(2, 3, crop, crop, generator=chance)
    device = next(model.parameters()).device
    with kept_buffers(model):
        speech, image = network(frames.to(device), torch.tensor([64, 64]), images.to(device))
        (speech.sum() + image.sum()).backward()
    network.zero_grad(set_to_none=True)
    return network
