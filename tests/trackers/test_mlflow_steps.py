"""Rows of steps.jsonl in MLflow: one a minute, each step once, whatever a resume takes anew."""

from mirrored import STUDY, history, mirrored, trial_of
from written_runs import begin_run, experiment

from sia.run.steps import StepRow, StepWriter

MEASURES = {"loss", "learning_rate", "pairs_per_second", "seconds_waiting", "peak_memory_gb", "gradient_norm"}


def written(run, after, *seconds):
    """A row at each of these seconds, a step a second."""
    writer = StepWriter(run.steps, after)
    for second in seconds:
        place = {"stage": 1, "epoch": 1, "step": second, "batch": second, "batches": 6300, "time": 1e9 + second}
        writer.add(StepRow(**place, **dict.fromkeys(MEASURES, 1.0 / second)))


def steps(uri, run):
    found = [point for point in history(uri, trial_of(uri, run)) if point[0][0].startswith("step/")]
    assert {key for (key, _), _, _ in found} == {f"step/{name}" for name in MEASURES}
    return sorted((step, value, time) for (key, step), value, time in found if key == "step/loss")


def test_a_row_a_minute_each_step_once(uri, tmp_path):
    run = begin_run(tmp_path, STUDY, experiment())
    written(run, 0, *range(10, 200, 10))
    mirrored(uri, [run])
    expected = [(step, 1.0 / step, 1_000_000_000_000 + step * 1000) for step in (10, 70, 130, 190, 250)]
    assert steps(uri, run) == expected[:4]
    mirrored(uri, [run])
    written(run, 100, *range(105, 265, 5))  # 105 to 190 anew
    mirrored(uri, [run])
    assert steps(uri, run) == expected
