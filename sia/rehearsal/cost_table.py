"""What a grid costs, by the steps of its rehearsal. It loads no torch."""

from collections.abc import Mapping, Sequence

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.fitted_table import FittedTable
from sia.run.cost import BANDWIDTH, Cost, Pace, captions_of, checkpoint_gb, cost, in_words, rehearsed
from sia.sweep.grid import Grid, GridPoint

HEADINGS = ("run", "ranks", "time", "GPU-hours", "checkpoints, GB")


def rehearsed_table(grid: Grid, launches: Mapping[str, Launch]) -> FittedTable | None:
    """Time, GPU-hours and checkpoints of the points whose rehearsal told the step, on the ranks of their profiles.

    None where none did. The embedded corpus, which rehearsals take, has short captions: a corpus of longer ones takes
    longer.
    """
    rows = []
    for point in grid.points:
        profile, experiment = launches[point.run.name].profile, point.experiment
        if (pace := rehearsed(grid.study, experiment, profile.cpus_per_task)) is None:
            continue
        told, found = ("corpus not prepared", ""), rehearsed_cost(point, profile, pace)
        if found is not None:
            kind = "" if pace.unit == "GPU-hours" else f" {pace.unit}"
            told = in_words(found.hours), f"{found.device_hours:,.3g}{kind}"
        cells = (point.run.name, str(profile.world_size), *told, f"{checkpoint_gb(experiment):,.2f}")
        rows.append(dict(zip(HEADINGS, cells, strict=True)))
    titles = ["by steps of the rehearsal, on captions of two seconds"]
    return FittedTable(rows, ("ranks", HEADINGS[-1]), titles, right=HEADINGS[1:]) if rows else None


def rehearsed_cost(point: GridPoint, profile: Profile, pace: Pace) -> Cost | None:
    """None where its corpus is not prepared."""
    captions = captions_of(point.experiment)
    if captions is None:
        return None
    return cost(point.experiment, captions, pace, profile.world_size, BANDWIDTH)


def total_hours(points: Sequence[GridPoint], launches: Mapping[str, Launch]) -> str:
    """GPU-hours or core-hours of all of them together, in words, as far as rehearsals told the step."""
    hours, known = dict[str, float](), 0
    for point in points:
        profile = launches[point.run.name].profile
        pace = rehearsed(point.study, point.experiment, profile.cpus_per_task)
        if pace and (found := rehearsed_cost(point, profile, pace)):
            hours[pace.unit] = hours.get(pace.unit, 0.0) + found.device_hours
            known += 1
    if not known:
        return "not known: it is told of a prepared corpus, by the step that --rehearse measures"
    some = "" if known == len(points) else f", for {known} of them; the others were not rehearsed"
    return " and ".join(f"{count:,.3g} {unit}" for unit, count in hours.items()) + some
