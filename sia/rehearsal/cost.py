"""What a grid costs, by the steps of its rehearsal. It loads no torch."""

from collections.abc import Mapping

from rich.box import SIMPLE
from rich.table import Table

from sia.cluster.launch import Launch
from sia.run.cost import BANDWIDTH, captions_of, checkpoint_gb, cost, in_words, rehearsed
from sia.sweep.grid import Grid


def rehearsed_table(grid: Grid, launches: Mapping[str, Launch]) -> Table | None:
    """Time, GPU-hours and checkpoints of the points whose rehearsal told the step, on the ranks of their profiles.

    None where none did. The embedded corpus, which rehearsals take, has short captions: a corpus of longer ones takes
    longer.
    """
    table = Table(title="by steps of the rehearsal, on captions of two seconds", title_justify="left", box=SIMPLE)
    for heading in ("run", "ranks", "time", "GPU-hours", "checkpoints, GB"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for point in grid.points:
        profile, experiment = launches[point.run.name].profile, point.experiment
        if (pace := rehearsed(grid.study, experiment, profile.cpus_per_task)) is None:
            continue
        told, captions = ("corpus not prepared", ""), captions_of(experiment)
        if captions is not None:
            found = cost(experiment, captions, pace, profile.world_size, BANDWIDTH)
            kind = "" if pace.unit == "GPU-hours" else f" {pace.unit}"
            told = in_words(found.hours), f"{found.device_hours:,.3g}{kind}"
        table.add_row(point.run.name, str(profile.world_size), *told, f"{checkpoint_gb(experiment):,.2f}")
    return table if table.row_count else None
