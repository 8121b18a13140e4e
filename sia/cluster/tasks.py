"""The tasks that a job may have, by their names."""

from sia.cluster.driver_job import DriveStudy
from sia.cluster.job import TrainStage
from sia.cluster.rehearsal import Rehearse

Task = TrainStage | Rehearse | DriveStudy
TASKS: dict[str, type[Task]] = {task.__name__: task for task in (TrainStage, Rehearse, DriveStudy)}
