"""Which checkpoints of a run may go, by a policy, and the room that they give back. It loads no torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from sia.errors import UsageError
from sia.run.driver import driver_status
from sia.run.folder import RunFolder
from sia.run.records import StagePlan
from sia.run.state import State, look

NAMES = ("best", "last")
UNTIL_DONE = ("previous", "partial")  # of no use once their stage is done
AT_WORK = (State.RUNNING, State.PENDING)


@dataclass(frozen=True)
class Policy:
    """What stays: the named checkpoints of every stage, and every Nth epoch's weights (0: none of them).

    `names` None: every stage's best; its last, too, where the run is unfinished or the stage is its final one.
    Whatever the policy, what an unfinished run needs to go on stays.
    """

    names: frozenset[str] | None = None
    every: int = 0

    @classmethod
    def parse(cls, keep: str | None, every: int | None) -> "Policy":
        """`keep` as in `best,last`. Raises UsageError for another name or a number below 1."""
        names = frozenset(keep.split(",")) if keep is not None else None
        unknown = sorted((names or frozenset()) - set(NAMES))
        if unknown:
            raise UsageError(f"--keep {keep}: {unknown[0]!r} is neither best nor last; give best, last or best,last")
        if every is not None and every < 1:
            raise UsageError(f"--every {every}: give 1 or more")
        return cls(names, every or 0)


def removable(run: RunFolder, policy: Policy) -> list[Path]:
    """The run's checkpoints that the policy gives up.

    None of a run that is running or pending, or that a living driver may go on with at any moment.
    """
    state = look(run).state
    finished = state == State.FINISHED
    if state in AT_WORK or (not finished and driver_status(run.study).lives):
        return []
    stages = len(run.planned_stages())
    kept = set() if finished else needed(run)
    return [
        path
        for number in range(1, stages + 1)
        for path in sorted(run.stage(number).best.parent.glob("*.pt"))
        if path not in kept and not _stays(path, policy, finished, number == stages)
    ]


def _stays(path: Path, policy: Policy, finished: bool, final_stage: bool) -> bool:
    epoch = re.fullmatch(r"epoch-(\d+)", path.stem)
    if epoch:
        return policy.every > 0 and int(epoch[1]) % policy.every == 0
    if path.stem in UNTIL_DONE:
        return False
    if path.stem not in NAMES:
        return True  # nobody knows what a person has put there
    if policy.names is not None:
        return path.stem in policy.names
    return path.stem == "best" or not finished or final_stage


def needed(run: RunFolder) -> set[Path]:
    """What an unfinished run goes on with: all bests, for the test split is measured with the best of them; the last
    of a stage that is not done; and what a stage that is not done starts from.
    """
    files = set()
    for number, settings in enumerate(run.planned_stages(), start=1):
        stage = run.stage(number)
        files.add(stage.best)
        if stage.done.exists():
            continue
        files |= {stage.last, stage.previous, stage.partial}
        plan = StagePlan.read(stage.plan)
        if plan is not None and plan.start_checkpoint is not None:
            files.add(run.path / plan.start_checkpoint)
        elif number > 1:
            files |= _start_candidates(run, number - 1, settings.start_from or "best")
    return files


def _start_candidates(run: RunFolder, before: int, start_from: str) -> set[Path]:
    """The files that `start_from` may come to mean when the next stage is planned."""
    stage = run.stage(before)
    _, _, epoch = start_from.partition("=")
    return {stage.best, stage.last} | ({stage.weights_of_epoch(int(epoch))} if epoch.isdigit() else set())
