"""What steps come to between two looks at the device: until then losses stay on it, and nothing waits for it."""

import resource
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from sia.data.loader import Batch
from sia.distributed import Ranks
from sia.errors import UserError
from sia.run.steps import StepRow
from sia.training.trainer import Trainer

MOST_NAMES = 5


class Meter:
    """Takes the steps of one epoch in, and makes a row of them at each look, which all ranks take at the same step."""

    def __init__(self, trainer: Trainer, stage_begins: int) -> None:
        """stage_begins: steps of the run before its stage."""
        self.trainer, self.stage_begins = trainer, stage_begins
        every = trainer.experiment.runtime.log_every_seconds
        self.every_seconds = every if trainer.ranks.is_first else float("inf")
        self._begin()

    def _begin(self) -> None:
        self.since, self.waited = time.monotonic(), 0.0
        self.losses: list[Tensor] = []  # on the device
        self.sound: list[Tensor] = []

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, whose wait is counted."""
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def step(self, batch: Batch) -> bool:
        """Take a step. Whether it is time for a look: by the first rank's clock, or at the epoch's end."""
        sampler = self.trainer.state.sampler
        is_last = sampler.next_batch + 1 == len(sampler)
        is_due = is_last or time.monotonic() - self.since >= self.every_seconds
        self.losses.append(self.trainer.step(batch, is_due))
        self.sound.append(self.trainer.sound)
        self.trainer.state.progress.step += 1
        sampler.next_batch += 1
        return is_due

    def look(self) -> StepRow:
        """Count the steps since the last look in the epoch's loss; the one place where the device is waited for.

        Called by all ranks. Raises UserError that names the first step whose loss is no number, and its captions.
        """
        trainer = self.trainer
        progress, sampler, ranks = trainer.state.progress, trainer.state.sampler, trainer.ranks
        *losses, norm = torch.stack([*self.losses, trainer.gradient_norm]).tolist()
        for number, loss in enumerate(losses, start=-len(losses)):
            if not abs(loss) < float("inf"):
                raise UserError(self._fault(loss, number))
            progress.loss_sum += loss
        row = StepRow(
            stage=progress.stage,
            epoch=sampler.epoch + 1,
            step=self.stage_begins + progress.step,
            batch=sampler.next_batch,
            batches=len(sampler),
            time=time.time(),
            loss=sum(losses) / len(losses),
            learning_rate=trainer.schedule(progress.step - 1),
            pairs_per_second=len(losses) * sampler.batch_size / (time.monotonic() - self.since),
            seconds_waiting=ranks.largest(self.waited),
            peak_memory_gb=ranks.largest(peak_memory_gb(ranks)),
            gradient_norm=norm,
        )
        self._begin()
        return row

    def _fault(self, loss: float, number: int) -> str:
        """number: the step's place, counted from the last one, -1."""
        state, ranks = self.trainer.state, self.trainer.ranks
        batch = state.sampler.global_batches(state.sampler.epoch)[state.sampler.next_batch + number]
        captions = [caption for rank in range(ranks.world_size) for caption in batch[rank :: ranks.world_size]]
        sound = ranks.gather(self.sound[number]).tolist()
        bad = [self.trainer.dataset.name(caption) for caption, good in zip(captions, sound, strict=True) if not good]
        named = ", ".join(sorted(bad)[:MOST_NAMES]) + ", ..." * (len(bad) > MOST_NAMES)
        whose = f" by {len(bad)} of its {len(captions)} captions ({named})" if bad else ""
        cure = "lower optimizer.learning_rate" + ", or mend these" * (0 < len(bad) < len(captions))
        return f"loss is {loss} at step {self.stage_begins + state.progress.step + number + 1}{whose}; {cure}"


def peak_memory_gb(ranks: Ranks) -> float:
    """The most memory of this rank's GPU, or of this process, that was taken until now."""
    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated(ranks.device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
