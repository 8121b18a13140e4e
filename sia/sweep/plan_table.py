"""The points of a grid, and what a sweep would do with each. It loads no torch and needs no corpus."""

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sia.cluster.launch import Launch
from sia.cluster.packs import Packs
from sia.cluster.profile import Profile, sbatch_script
from sia.config import Experiment, flatten, varying
from sia.models.parameter_counts import image_parameters, speech_parameters
from sia.report.fitted_table import FittedTable
from sia.report.settings import PAIR, differing, in_short, stages_text
from sia.run.folder import runs_root
from sia.run.selection import protocol
from sia.run.state import State, look
from sia.sweep.grid import Grid, GridPoint

ACTIONS = {
    State.FINISHED: "finished",
    State.RUNNING: "attach",
    State.PENDING: "attach",
    State.STOPPED: "stopped",
}

TOLD_ELSEWHERE = (*PAIR, "training.seed")  # by a column; so are stages
LEFT_OUT = ("image\nparameters", "speech\nparameters", "resources")  # the first one first, on a narrow terminal
STAGES = "stages:\nepochs, schedule, rate"


def plan_table(study: str, points: list[GridPoint], profiles: list[Profile]) -> FittedTable:
    """Name, parameters of both branches, stages with epochs and rate, the settings in which points differ, signature,
    and what is done; resources on top, or of each point where they differ. `profiles` are those of the points.
    """
    shared = len(set(resources := [profile.describe() for profile in profiles])) == 1
    seeds = len({point.experiment.training.seed for point in points}) > 1
    settings = differences([point.experiment for point in points])
    where_all = f", each on {resources[0]}" if shared else ""
    title = f"study {study}: {count_of(points)}{where_all}{_protocol(points)}"
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
            "action": action(point),
        }
        for point, setting, where in zip(points, settings, resources, strict=True)
    ]
    shown_if = {"settings": any(settings), "seed": seeds, "resources": not shared}
    wrap, right = (STAGES, "settings", "resources"), ("speech\nparameters", "image\nparameters", "seed")
    return FittedTable(rows, LEFT_OUT, [title], wrap=wrap, right=right, shown_if=shown_if)


def differences(experiments: list[Experiment]) -> list[str]:
    """For each, a line of each key in which they differ, without those that other columns tell."""
    found = differing(experiments)
    stages = {key for one in found for key in one if key.startswith("stages")}
    return ["\n".join(one) for one in in_short(found, {*TOLD_ELSEWHERE, *stages})]


def _protocol(points: list[GridPoint]) -> str:
    """A line on the split that chooses best epochs, where it is test; points that differ in it tell it as a setting."""
    splits = {point.experiment.training.select_on for point in points}
    return f"\nbest epochs chosen on {protocol('test')}" if splits == {"test"} else ""


def count_of(points: list[GridPoint]) -> str:
    return "1 run" if len(points) == 1 else f"{len(points)} runs"


def action(point: GridPoint) -> str:
    """finished, attach or submit: what a sweep does with the point as its run folder is now."""
    if not point.run.config.exists():
        return "submit"
    return ACTIONS.get(look(point.run).state, "submit")


def show_plan(grid: Grid, launches: dict[str, Launch], console: Console) -> None:
    """Print the table, and the script of each kind of job that Slurm would be given."""
    of_points = [launches[point.run.name] for point in grid.points]
    for line in grid.told:
        console.print(Text(line), soft_wrap=True)
    console.print(plan_table(grid.study, grid.points, [launch.profile for launch in of_points]))
    for launch in {id(launch): launch for launch in of_points}.values():
        if launch.cluster != "slurm":
            continue
        runs = [point.run for point, other in zip(grid.points, of_points, strict=True) if other is launch]
        names = ", ".join(run.name for run in runs)
        if (together := launch.profile.runs_per_node) > 1:
            print(f"sbatch script of each job that {together} of {names} share:\n")
            folder = Packs.of_study(runs[0].path.parent).another()
            print(sbatch_script(launch.profile.of_pack(), f"{grid.study}/pack-{folder.name}", folder, overlap=True))
        else:
            print(f"sbatch script of each stage of {names} (the first one's):\n")
            print(sbatch_script(launch.profile, f"{grid.study}/{runs[0].name}/1", runs[0].jobs))


def points_table(grid: Grid) -> Table:
    """A row a point of the grid: its number for --point, its run, what sets it apart from other points, its state."""
    table = Table(title=f"study {grid.study} (runs in {runs_root() / grid.study})", box=SIMPLE)
    for heading in ("point", "run", "stages: epochs, schedule, rate", "settings", "state"):
        table.add_column(heading, no_wrap=heading in ("point", "run", "state"))
    flat = [flatten(point.experiment.model_dump(mode="json", exclude={"stages", "runtime"})) for point in grid.points]
    keys = varying(flat)
    for number, (point, values) in enumerate(zip(grid.points, flat, strict=True), start=1):
        state = look(point.run).state.value if point.run.config.is_file() else "not made yet"
        settings = "\n".join(f"{key}={values[key]}" for key in keys if key in values)
        table.add_row(str(number), point.run.name, stages_text(point.experiment), settings, state)
    return table
