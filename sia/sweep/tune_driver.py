"""Ray Tune schedules the grid: one trial a run. A trial holds no accelerator; its work is a cluster's job.

Tune's own state is thrown away each time: the run folders say what is finished and what is running.
"""

import logging
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sia.cluster.end_jobs import cancel_jobs
from sia.cluster.launch import Launch
from sia.imports import kept
from sia.operate.cancel import jobs_of
from sia.operate.damage import how_unfinished, readable
from sia.run.folder import RunFolder
from sia.run.records import Stopped
from sia.run.row_files import Row
from sia.sweep.chain import StageFailed, begin, follow_run

METRIC = "selection/R_at_10"
FIRST_STAGE_EPOCH = "first_stage_epoch"
LONGEST_TMPDIR = 35
# Of a trial whose worker was killed: another one attaches to its run.
MAX_FAILURES = 10
TRIAL_CPUS = 0.001  # Tune refuses 0
CORES = os.cpu_count() or 1
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A Ctrl-C ends the driver, not the jobs: the sweep's command says so itself.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The sweep has its own display; the new output engine prints even when it is told not to.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Workers have a niceness of 15, which a local job would inherit.
    "RAY_worker_niceness": "0",
    # Trials hold no data: a login node whose memory is nearly full must not end them.
    "RAY_memory_monitor_refresh_ms": "0",
}


def tune_runs(runs: list[RunFolder], launches: dict[str, Launch], max_concurrent: int, asha: bool) -> dict[str, str]:
    """Bring every run to its end; the errors of those that failed, by run name."""
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    os.environ["SIA_WORKING_FOLDER"] = os.getcwd()
    first = runs[:max_concurrent]
    with ThreadPoolExecutor(CORES) as pool:  # Ray needs as long to start as their jobs do
        for run in first:
            pool.submit(begin, run, launches[run.name])
        _start_ray(min(len(first), CORES))
    import ray
    from ray import tune

    try:
        with tempfile.TemporaryDirectory(prefix="sia-tune-", ignore_cleanup_errors=True) as scratch:
            trainable = tune.with_resources(tune.with_parameters(_trial, launches=launches), {"cpu": TRIAL_CPUS})
            results = tune.Tuner(
                trainable,
                param_space={"run": tune.grid_search([str(run.path) for run in runs])},
                tune_config=tune.TuneConfig(
                    metric=METRIC,
                    mode="max",
                    max_concurrent_trials=max_concurrent,
                    scheduler=_asha(runs) if asha else None,
                    reuse_actors=not asha,  # a trial that is given up leaves with its process, and ends its job
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    verbose=0,
                    failure_config=tune.FailureConfig(MAX_FAILURES),
                    callbacks=[_quiet()],
                ),
            ).fit()
            return _errors(results, runs)
    finally:
        _cancel_stopped(runs)
        ray.shutdown()


def _start_ray(workers: int) -> None:
    """workers: so many processes for trials begin at once."""
    with kept():
        import ray
        import ray.tune  # what follows needs it

    for noisy in ("ray", "ray.tune"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address="local",  # not somebody's cluster that happens to run on this login node
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=80 << 20,
            # For Ray's sockets, where $TMPDIR is too long for their paths' 107 characters; None leaves it to Ray.
            _temp_dir=f"/tmp/ray-{os.getuid()}" if len(tempfile.gettempdir()) > LONGEST_TMPDIR else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except SystemExit:  # Ray's own answer to a SIGTERM, without a word
        if callable(on_term):
            on_term(signal.SIGTERM, None)
        raise
    signal.signal(signal.SIGTERM, on_term)  # Ray's own prints the stack of its C++ code


def _quiet() -> Any:
    """Tune's own reporter tells of a trial without a row, even when it is asked for silence."""
    from ray.tune.progress_reporter import TrialProgressCallback

    class Quiet(TrialProgressCallback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            pass

    return Quiet()


def _trial(config: dict[str, Any], launches: dict[str, Launch]) -> None:
    """One trial: the chain of one run, its rows relayed to Tune."""
    from ray import tune

    run = RunFolder(Path(config["run"]))
    try:
        follow_run(
            run, launches[run.name], lambda row: tune.report(tune_metrics(row)) if "stage_epoch" in row else None
        )
    except StageFailed:
        # The run folder says so; an error in Tune would only repeat it with a traceback.
        return
    finally:
        # Tune ends a trial by SystemExit from within report, also when the driver ends: the marker tells which it is.
        _cancel_stopped([run])


def tune_metrics(row: Row) -> dict[str, float]:
    """A row's measures under names that Tune takes, and what schedulers compare by.

    `first_stage_epoch` stands still after the first stage, so that a restart's epochs are compared with nobody's.
    """
    from sia.run.selection import selection_value

    measures = {key: value for key, value in row.items() if isinstance(value, (int, float))}
    in_first = row["epoch"] if row["stage"] == 1 else 0
    return {**measures, METRIC: selection_value(row), FIRST_STAGE_EPOCH: in_first}


def _asha(runs: list[RunFolder]) -> Any:
    """Successive halving over the epochs of the first stage; whom it stops gets a marker in the run folder."""
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    class MarkingASHA(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result[FIRST_STAGE_EPOCH] == 0:
                return TrialScheduler.CONTINUE
            decision = super().on_trial_result(tune_controller, trial, result)
            if decision == TrialScheduler.STOP:
                run = RunFolder(Path(trial.config["run"]))
                marker = Stopped(by="asha", epoch=result["epoch"], value=result[METRIC], time=time.time())
                marker.write(run.stopped)
            return decision

    longest = max(run.experiment().stages[0].epochs for run in runs)
    # One more than the longest stage: nobody is stopped for having reached the end.
    return MarkingASHA(time_attr=FIRST_STAGE_EPOCH, max_t=longest + 1, grace_period=max(1, longest // 9))


def _errors(results: Any, runs: list[RunFolder]) -> dict[str, str]:
    failed = how_unfinished(runs)
    if results.errors and not failed:
        failed["tune"] = str(results.errors[0])
    return failed


def _cancel_stopped(runs: list[RunFolder]) -> None:
    stopped, _ = readable(run for run in runs if run.stopped.exists())
    untold = cancel_jobs([job for run in stopped for job in jobs_of(run)])
    for number, why in untold.items():
        print(f"job {number} was not told to end: {why}", file=sys.stderr)
