"""What jobs/submit.py was asked for: written down in the study's folder, and asked for once more. It loads no torch."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sia.atomic import write_text
from sia.config import parse_override, read_yaml
from sia.errors import UsageError, UserError
from sia.gate import own_folder
from sia.run.folder import driver_folder, request_of, runs_of, runs_root
from sia.run.records import Request
from sia.sweep.grid import Grid, load_grid, profile_path


def load(request: Request, path: Path | None = None, study: str = "") -> Grid:
    """The points of its grid, or of another file in its place, whose study has this name."""
    overrides = dict(parse_override(text) for text in request.overrides)
    return load_grid(path or Path(request.grid), request.miniature, overrides, study)


def remember(request: Request, grid: Grid) -> None:
    """Write it down with the grid as it is now. For who drives the study, or is about to."""
    own_folder(driver_folder(grid.study))
    if grid.path != (frozen := _grid_of(grid.study)):
        values = frozen_grid(read_yaml(grid.path), grid.path.absolute())
        write_text(frozen, yaml.safe_dump(values, sort_keys=False))
    request.model_copy(update={"grid": str(Path(request.grid).absolute())}).write(request_of(grid.study))


def repeat(study: str, **changed: Any) -> tuple[Request, Grid]:
    """What the study was asked for last, but for what is `changed`, and the grid as it was then.

    A grid file that makes other runs now is told of. Raises UserError where nothing was written down.
    """
    former = Request.read(request_of(study))
    if former is None:
        held = runs_root() / study
        raise UserError(f"{held}: jobs/submit.py has submitted no such study; python jobs/submit.py --grid FILE does")
    request = former.model_copy(update={key: value for key, value in changed.items() if value is not None})
    grid = _as_submitted(study, request)
    if news := _news_of(request, grid):
        print(f"{study}: {news}; what was submitted goes on", file=sys.stderr, flush=True)
    return request, grid


def submitted_runs(study: str) -> set[str]:
    """Names of the runs of the last submission; of all that are there, where nobody knows."""
    try:
        request = Request.read(request_of(study))
        runs = [point.run for point in _as_submitted(study, request).points] if request else runs_of(study)
    except UserError:
        runs = runs_of(study)
    return {run.name for run in runs}


def _as_submitted(study: str, request: Request) -> Grid:
    grid = load(request, _grid_of(study), study)
    return replace(grid, record=grid.record.model_copy(update={"grid": request.grid}))


def _grid_of(study: str) -> Path:
    return driver_folder(study) / "grid.yaml"


def _news_of(request: Request, grid: Grid) -> str:
    """In what the person's own file differs from the grid that was submitted."""
    try:
        now, before = ({point.run.name for point in one.points} for one in (load(request), grid))
    except UserError as error:
        return f"its grid cannot be read any more ({error})"
    if now == before:
        return ""
    changes = f"{len(now - before)} new, {len(before - now)} gone"
    return f"{request.grid} makes other runs now ({changes}), which --grid {request.grid} submits"


def frozen_grid(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The grid's values with absolute profiles, so that the file may lie anywhere."""

    def placed(holder: dict[str, Any]) -> dict[str, Any]:
        absolute = dict(holder)
        try:
            if holder.get("profile"):
                absolute["profile"] = str(profile_path(path, holder["profile"]))
        except UsageError:  # of a part that is not used: load_grid has found all that are
            pass
        if holder.get("where"):
            absolute["where"] = [placed(one) for one in holder["where"]]
        return absolute

    small = values.get("miniature")
    return placed(values) | ({"miniature": placed(small)} if isinstance(small, dict) else {})
