"""Where the learning rate of a run started anew: at a cycle's end, or at a stage from an earlier checkpoint."""

from dataclasses import dataclass

from sia.config import Stage


@dataclass(frozen=True)
class Restart:
    """The rate restarted after `after_epoch`; `from_epoch` is the checkpoint a stage began at, None within a stage."""

    after_epoch: int
    stage: int
    from_epoch: int | None = None


@dataclass(frozen=True)
class Begun:
    """A stage that has begun: its settings, the epochs trained before it, the epoch whose weights it took."""

    stage: Stage
    first_epoch: int = 0
    start_epoch: int | None = None


def restarts(begun: list[Begun], epochs_trained: int) -> list[Restart]:
    """All restarts of a run so far, in order; one after its last epoch has not happened yet."""
    found: list[Restart] = []
    for number, one in enumerate(begun, start=1):
        if number > 1:
            found.append(Restart(one.first_epoch, number, one.start_epoch))
        found += [Restart(one.first_epoch + end, number) for end in one.stage.schedule.restarts(one.stage.epochs)]
    return [restart for restart in found if restart.after_epoch < epochs_trained]
