"""What a sweep would do, before it does it: a row a grid point. It loads no torch and needs no corpus."""

from rich.box import SIMPLE
from rich.table import Table

from sia.cluster.profile import Profile
from sia.cluster.state import State, look
from sia.config import Experiment
from sia.flatten import flatten, varying
from sia.parameter_counts import image_parameters, speech_parameters
from sia.sweep.grid import GridPoint

ACTIONS = {
    State.FINISHED: "finished",
    State.RUNNING: "attach",
    State.PENDING: "attach",
    State.STOPPED: "stopped",
}

TOLD_ELSEWHERE = ("model.gru_layers", "model.latent_size", "training.seed")  # by the pair's name, and a column


def plan_table(study: str, points: list[GridPoint], profile: Profile) -> Table:
    """Name, parameters of both branches, stages with epochs and rate, the settings in which points differ, signature,
    and what is done; resources on top."""
    seeds = len({point.experiment.training.seed for point in points}) > 1
    settings = differences([point.experiment for point in points])
    table = Table(title=f"study {study}: {count_of(points)}, each on {profile.describe()}", box=SIMPLE)
    table.add_column("pair", no_wrap=True)
    table.add_column("speech\nparameters", justify="right", no_wrap=True)
    table.add_column("image\nparameters", justify="right", no_wrap=True)
    table.add_column("stages:\nepochs, schedule, rate")
    if any(settings):
        table.add_column("settings")
    if seeds:
        table.add_column("seed", justify="right", no_wrap=True)
    table.add_column("signature", no_wrap=True)
    table.add_column("action", no_wrap=True)
    for point, setting in zip(points, settings, strict=True):
        model = point.experiment.model
        table.add_row(
            model.pair_name,
            f"{speech_parameters(model):,}",
            f"{image_parameters(model):,}",
            stages_text(point.experiment),
            *([setting] if any(settings) else []),
            *([str(point.experiment.training.seed)] if seeds else []),
            point.experiment.signature,
            action(point),
        )
    return table


def differences(experiments: list[Experiment]) -> list[str]:
    """For each, its values of the keys in which they differ, without those that other columns tell."""
    flat = [flatten(one.model_dump(mode="json", exclude={"stages", "runtime"})) for one in experiments]
    keys = [key for key in varying(flat) if key not in TOLD_ELSEWHERE]
    return ["\n".join(f"{key}={one[key]}" for key in keys) for one in flat]


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
