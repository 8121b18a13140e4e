"""The points of a grid, and what a sweep would do with each. It loads no torch and needs no corpus."""

from collections.abc import Sequence

from sia.cluster.profile import Profile
from sia.config import Experiment
from sia.fitted_table import FittedTable
from sia.models.sizes import image_parameters, speech_parameters
from sia.operate.cancel import BY
from sia.operate.damage import FAULTS
from sia.report.differences import PAIR, differing, in_short, stages_text, text
from sia.run.folder import runs_root
from sia.run.selection import protocol
from sia.run.state import State, look
from sia.sweep.grid import Grid, GridPoint

BEGIN = "submit"
ACTIONS = {State.FINISHED: "finished", State.RUNNING: "attach", State.PENDING: "attach"}

TOLD_ELSEWHERE = (*PAIR, "training.seed")  # by a column; so are stages
LEFT_OUT = ("image\nparameters", "speech\nparameters", "resources")  # the first one first, on a narrow terminal
STAGES = "stages:\nepochs, schedule, rate"


def plan_table(
    study: str, points: list[GridPoint], profiles: list[Profile], actions: list[str] | None = None
) -> FittedTable:
    """Name, parameters of both branches, stages with epochs and rate, the settings in which points differ, signature,
    and what is done; resources on top, or of each point where they differ. `profiles` and `actions` are the points'.
    """
    actions = actions or [action(point) for point in points]
    shared = len(set(resources := [profile.describe() for profile in profiles])) == 1
    seeds = len({point.experiment.training.seed for point in points}) > 1
    settings = differences([point.experiment for point in points])
    where_all = f", each on {resources[0]}" if shared else ""
    on_test = {point.experiment.training.select_on for point in points} == {"test"}  # else a setting tells it, if any
    how_chosen = f"\nbest epochs chosen on {protocol('test')}" if on_test else ""
    title = f"study {study}: {count_of(points)}{where_all}{how_chosen}"
    rows = [
        {
            "pair": point.experiment.model.pair_name,
            "speech\nparameters": f"{speech_parameters(point.experiment.model):,}",
            "image\nparameters": f"{image_parameters(point.experiment.model):,}",
            STAGES: stages_text(point.experiment),
            "settings": setting,
            "seed": str(point.experiment.training.seed),
            "resources": where,
            "signature": point.experiment.signature,
            "action": done,
        }
        for point, setting, where, done in zip(points, settings, resources, actions, strict=True)
    ]
    shown_if = {"settings": any(settings), "seed": seeds, "resources": not shared}
    wrap, right = (STAGES, "settings", "resources"), ("speech\nparameters", "image\nparameters", "seed")
    return FittedTable(rows, LEFT_OUT, [title], wrap=wrap, right=right, shown_if=shown_if)


def differences(experiments: list[Experiment]) -> list[str]:
    """For each, a line of each key in which they differ, without those that other columns tell."""
    found = differing(experiments)
    stages = {key for one in found for key in one if key.startswith("stages")}
    return ["\n".join(one) for one in in_short(found, {*TOLD_ELSEWHERE, *stages})]


def count_of(runs: Sequence[object]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def action(point: GridPoint, asha: bool = False) -> str:
    """What a sweep does with the point as its run folder is now: submit, attach, or leave it as finished, damaged, or
    stopped, as asha's scheduler does with what it gave up.
    """
    if not point.run.config.exists():
        return BEGIN
    try:
        found = look(point.run)
    except FAULTS:
        return "damaged"
    given_up = asha and found.state == State.STOPPED and found.stopped_by != BY
    return "stopped" if given_up else ACTIONS.get(found.state, BEGIN)


def points_table(grid: Grid) -> FittedTable:
    """A row a point of the grid: its number for --point, its run, what sets it apart from other points, its state."""
    found = differing([point.experiment for point in grid.points])
    settings = ["\n".join(f"{key}={text(one[key])}" for key in one if not key.startswith("stages")) for one in found]
    rows = [
        {
            "point": str(number),
            "run": point.run.name,
            STAGES: stages_text(point.experiment),
            "settings": setting,
            "state": look(point.run).state.value if point.run.config.is_file() else "not made yet",
        }
        for number, (point, setting) in enumerate(zip(grid.points, settings, strict=True), start=1)
    ]
    title = f"study {grid.study} (runs in {runs_root() / grid.study})"
    shown_if = {"settings": any(settings)}
    return FittedTable(rows, ("state",), [title, grid.study], wrap=(STAGES, "settings"), shown_if=shown_if)
