"""How MLflow's pages show a study: a table of its trials, the best first, and charts of their restarts and recalls.

MLflow opens an experiment on a page for language models, and its table of runs without any metric. A view that somebody
shares is a tag of the experiment, so that a link to it needs no clicks; MLflow 3 reads it as JSON.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sia.config import flatten, varying
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.trackers.mlflow.points import BEST, HOURS, RATE, SELECTION, STAGE, TESTED
from sia.trackers.mlflow.values import CHAIN_TAG, ENDED_TAG, KIND_TAG, STATE_TAG, TRIAL, Texts, chain_text

VIEW = "sia"
LOSS, SIZE = "train/loss", "speech_parameters"
PAIR = ("model.gru_layers", "model.latent_size")  # told by the pair's name
DURATION, USER = "attributes.`Duration`", "attributes.`User`"
AFTER = (*(f"metrics.`{one}`" for one in TESTED), DURATION, f"tags.`{STATE_TAG}`", USER)
LAST = (
    f"metrics.`{BEST}`",
    f"metrics.`{HOURS}`",
    f"params.`{SIZE}`",
    "params.`image_parameters`",
    f"tags.`{ENDED_TAG}`",
)
PIXELS_A_LETTER, MARGIN, LONGEST = 8, 44, 48
FOLDED = ("validation", "step", "Model metrics")
NOTE = (
    f"Recalls are in per cent; s2i is speech to image, i2s image to speech. `{BEST}` is the best mean of both on the "
    f"split that chooses the epoch (validation, unless `training.select_on` says test), `{SELECTION}` that mean by "
    "epoch, beside its rate and stage; `test ...` was measured once, with that epoch's checkpoint. Stages, all but the "
    "first a warm restart, are runs nested below their trial. Duration is from the first job's begin to the end, "
    f"`{HOURS}` what its epochs took. Rebuilt from the run folders by `python jobs/track.py`."
)
Settings = Mapping[str, Any]


def settings_of(runs: Sequence[RunFolder]) -> dict[RunFolder, dict[str, Any]]:
    """Of each run that can be read, its values of the dotted keys in which they differ; its chain of stages as one."""
    flat = {}
    for run in runs:
        with suppress(UserError, OSError):
            told = run.experiment().model_dump(mode="json", exclude={"runtime": True, "data": {"folder"}})
            flat[run] = flatten({**told, CHAIN_TAG: chain_text(run)})
    keys = varying(list(flat.values()))
    return {run: {key: one[key] for key in keys if key in one} for run, one in flat.items()}


def name_of(run: RunFolder, settings: Settings) -> str:
    """What legends show: the values that the pair's name does not tell, then the run's own name."""
    told = [
        f"{value:.10g}" if isinstance(value, float) else str(value)
        for key, value in settings.items()
        if key not in PAIR
    ]
    return " ".join([", ".join(told).replace(", then ", " + "), run.name]).strip()


def experiment_tags(many: Sequence[Settings]) -> Texts:
    """Of the experiment of runs with these settings: the view that the addresses open."""
    keys = list(dict.fromkeys(key for one in many for key in one))
    varied = {f"tags.`{key}`" if key == CHAIN_TAG else f"params.`{key}`": key for key in keys}
    columns = [*varied, *AFTER, *LAST]
    longest = {column: max(len(str(one.get(key, ""))) for one in many) for column, key in varied.items()}
    letters = {column: max(len(column.split("`")[1]), min(longest.get(column, 0), LONGEST)) for column in columns}
    view = {
        "searchFilter": f"tags.`{KIND_TAG}` = '{TRIAL}'",
        "orderByKey": f"metrics.`{BEST}`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": ["duration" if column == DURATION else column for column in columns],
        "columnWidths": {column: PIXELS_A_LETTER * count + MARGIN for column, count in letters.items()},
        "runsHiddenMode": "FIRST_20_RUNS",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "isAccordionReordered": True,  # else MLflow sorts the sections by name
        "compareRunSections": [_section("curves", "By epoch, with the warm restarts"), _section("tested", "On test")]
        + [_section(name, name, display=False) for name in FOLDED],
        "compareRunCharts": [
            *(_chart("LINE", "curves", key, metricKey=key, lineSmoothness=0) for key in (SELECTION, RATE, STAGE, LOSS)),
            *(_chart("BAR", "tested", key, metricKey=key) for key in TESTED),
            *_charts_of([key for key in keys if key != CHAIN_TAG]),
        ],
    }
    return {f"mlflow.sharedViewState.{VIEW}": json.dumps(view)}


def _charts_of(keys: list[str]) -> list[dict[str, Any]]:
    """Test R@10 by the numbers and names that vary, and by size where the models do."""
    size = {"xaxis": {"key": SIZE, "type": "PARAM"}, "yaxis": {"key": TESTED[0], "type": "METRIC"}}
    by_size = [_chart("SCATTER", "tested", "size", **size)] * any(key.startswith("model.") for key in keys)
    varied = [_chart("PARALLEL", "tested", "varied", selectedParams=keys, selectedMetrics=[TESTED[0]])]
    return by_size + varied * bool(keys)


def _section(uuid: str, name: str, display: bool = True) -> dict[str, Any]:
    return {"uuid": uuid, "name": name, "display": display, "isReordered": True, "deleted": False, "isGenerated": False}


def _chart(kind: str, section: str, name: str, **own: Any) -> dict[str, Any]:
    place = {"uuid": f"{section}-{name}", "type": kind, "metricSectionId": section, "deleted": False}
    return {**place, "isGenerated": False, "runsCountToCompare": 20, **own}


def view_urls(server: str, experiment_id: str) -> list[str]:
    """The addresses of the study's table and of its charts on a tracking server, such as http://127.0.0.1:5000."""
    table = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"
    return [table, f"{table}&compareRunsMode=CHART"]


def run_url(server: str, experiment_id: str, run_id: str) -> str:
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
