"""The tasks that a job may have, by their names."""

from sia.cluster.driver_job import DriveStudy
from sia.cluster.shard_job import WriteShard
from sia.cluster.stage_job import TrainStage
from sia.evaluation.job import EvaluateRun
from sia.rehearsal.job import Rehearse

Task = TrainStage | Rehearse | DriveStudy | WriteShard | EvaluateRun
TASKS: dict[str, type[Task]] = {
    task.__name__: task for task in (TrainStage, Rehearse, DriveStudy, WriteShard, EvaluateRun)
}
