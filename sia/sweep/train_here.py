"""One run in this process, under a debugger: no Tune, no cluster, no live table that would write over its prompt."""

from sia.cluster.launch import Launch
from sia.cluster.profile import Profile
from sia.config import Experiment
from sia.errors import UsageError, UserError
from sia.run.driver import driving
from sia.run.folder import RunFolder, refuse_rehearsal
from sia.run.state import RunStatus, State, look
from sia.sweep.chain import start_stage
from sia.sweep.drive import mirrored
from sia.sweep.take_up import take_over

LAUNCH = Launch("debug", Profile())


def train_here(run: RunFolder, experiment: Experiment, stage: int | None = None) -> None:
    """Bring the run to its end, or only through stage `stage`, in the calling thread; its tracker mirrors it meanwhile.

    An error of the training passes through with its traceback. So does a KeyboardInterrupt: what was not saved at the
    end of an epoch is lost, and the run can be gone on with. Raises UserError where a driver or a job has the run,
    UsageError for a stage that is not the next one.
    """
    refuse_rehearsal(run.study)
    _check_stage(run, stage)
    with driving(run.study):
        run.create(experiment)
        run.stopped.unlink(missing_ok=True)
        take_over(run.study, [run], LAUNCH.cluster, by_name=True)
        with mirrored(run.study, [run], "python jobs/track.py mirrors it"):
            _train(run, stage)


def _check_stage(run: RunFolder, wanted: int | None) -> None:
    status = look(run) if run.config.is_file() else RunStatus(State.NEW, 1)
    if wanted is not None and (status.state == State.FINISHED or status.stage != wanted):
        found = "the run is finished" if status.state == State.FINISHED else f"stage {status.stage} comes next"
        raise UsageError(f"--stage {wanted}: {found} in {run.path}; give the next stage, or leave --stage out")


def _train(run: RunFolder, last_stage: int | None) -> None:
    while (status := look(run)).state != State.FINISHED:
        if status.state in (State.RUNNING, State.PENDING):
            raise UserError(f"{run.path}: job {status.job_id} has it ({status.state.value}); wait for it, or cancel it")
        try:
            start_stage(run, status.stage, LAUNCH)
        except KeyboardInterrupt:
            # Nothing is in any queue: whoever goes on with the run need not wait for this job to turn up.
            run.stage(status.stage).job.unlink(missing_ok=True)
            raise
        if status.stage == last_stage:
            return
