"""The tasks that a job may have, by their names."""

from sia.cluster.driver_job import DriveStudy
from sia.cluster.evaluation_job import EvaluateRun
from sia.cluster.job import TrainStage
from sia.cluster.rehearsal import Rehearse
from sia.cluster.shard_job import WriteShard

Task = TrainStage | Rehearse | DriveStudy | WriteShard | EvaluateRun
TASKS: dict[str, type[Task]] = {
    task.__name__: task for task in (TrainStage, Rehearse, DriveStudy, WriteShard, EvaluateRun)
}
