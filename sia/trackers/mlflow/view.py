"""How MLflow's pages show a study: trials alone, the best R@10 first, in the columns that one compares pairs by.

MLflow opens an experiment on a page for language models, and its table of runs without any metric. A view that somebody
shares is a tag of the experiment, so that a link to it needs no clicks; MLflow 3 reads it as JSON.
"""

import json

from sia.trackers.mlflow.values import BEST, KIND_TAG, TRIAL, Texts

VIEW = "sia"
PARAMETERS = ("pair", "speech_parameters", "image_parameters", "training.seed")
METRICS = (BEST, *(f"test/{way}/R_at_{k}" for k in (10, 1) for way in ("speech_to_image", "image_to_speech")))
NOTE = (
    f"`{BEST}` is the best mean of both directions on the split that chooses the epoch (validation, unless "
    "`training.select_on` says test), `selection/R_at_10` that mean by epoch; `test/...` was measured once, with that "
    "best epoch's checkpoint. Stages, each but the first a warm restart, are nested below their trial and have a "
    "`selection/R_at_10` of their own. Rebuilt from the run folders by `python jobs/track.py`."
)


def experiment_tags() -> Texts:
    """The tags of a study's experiment: the view that `view_url` opens, and what its measures mean."""
    shown = [*(f"metrics.`{one}`" for one in METRICS), *(f"params.`{one}`" for one in PARAMETERS)]
    view = {
        "searchFilter": f"tags.`{KIND_TAG}` = '{TRIAL}'",
        "orderByKey": f"metrics.`{BEST}`",
        "orderByAsc": False,
        "selectedColumns": ["attributes.`Duration`", *shown],
    }
    return {f"mlflow.sharedViewState.{VIEW}": json.dumps(view), "mlflow.note.content": NOTE}


def view_url(server: str, experiment_id: str) -> str:
    """The address of the study's table on a tracking server, such as http://127.0.0.1:5000."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"


def how_to_open(uri: str, experiment_id: str) -> list[str]:
    """The lines that tell a person how to see the study: for a database file, the command that serves it first."""
    if uri.startswith("http"):
        return [view_url(uri, experiment_id)]
    # Without its job runner the server takes 0.5 GB, not 2.5.
    serve = f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1 --backend-store-uri {uri}"
    return [serve, f"then {view_url('http://127.0.0.1:5000', experiment_id)}"]
