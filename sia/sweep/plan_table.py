"""What a sweep would do, before it does it: a row a grid point. It loads no torch and needs no corpus."""

from rich.box import SIMPLE
from rich.table import Table

from sia.cluster.profile import Profile
from sia.cluster.state import State, look
from sia.config import Experiment
from sia.parameter_counts import image_parameters, speech_parameters
from sia.sweep.grid import GridPoint

ACTIONS = {
    State.FINISHED: "finished",
    State.RUNNING: "attach",
    State.PENDING: "attach",
    State.STOPPED: "stopped",
}


def plan_table(study: str, points: list[GridPoint], profile: Profile) -> Table:
    """Name, parameters of both branches, stages with epochs and rate, signature, and what is done; resources on top."""
    seeds = len({point.experiment.training.seed for point in points}) > 1
    table = Table(title=f"study {study}: {count_of(points)}, each on {profile.describe()}", box=SIMPLE)
    table.add_column("pair", no_wrap=True)
    table.add_column("speech\nparameters", justify="right", no_wrap=True)
    table.add_column("image\nparameters", justify="right", no_wrap=True)
    table.add_column("stages:\nepochs, schedule, rate")
    if seeds:
        table.add_column("seed", justify="right", no_wrap=True)
    table.add_column("signature", no_wrap=True)
    table.add_column("action", no_wrap=True)
    for point in points:
        model = point.experiment.model
        table.add_row(
            model.pair_name,
            f"{speech_parameters(model):,}",
            f"{image_parameters(model):,}",
            stages_text(point.experiment),
            *([str(point.experiment.training.seed)] if seeds else []),
            point.experiment.signature,
            action(point),
        )
    return table


def count_of(points: list[GridPoint]) -> str:
    return "1 run" if len(points) == 1 else f"{len(points)} runs"


def stages_text(experiment: Experiment) -> str:
    """For example `120 calr 0.0002, then 30 calr 0.0001`."""
    rate = experiment.optimizer.learning_rate
    return ", then ".join(f"{s.epochs} {s.schedule} {rate * s.lr_scale:g}" for s in experiment.stages)


def action(point: GridPoint) -> str:
    """finished, attach or submit: what a sweep does with the point as its run folder is now."""
    if not point.run.config.exists():
        return "submit"
    return ACTIONS.get(look(point.run).state, "submit")
