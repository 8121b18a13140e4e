"""What a run came to, in words: the description of its page in MLflow; and whose a description is."""

import hashlib
from collections.abc import Mapping

from sia.run.folder import RunFolder, again
from sia.run.records import Finished
from sia.run.row_files import Row
from sia.run.selection import DIRECTIONS, protocol, selected_on, selection_value
from sia.trackers.tracker import Ending

NOTE_TAG, NOTE_MARK = "mlflow.note.content", "sia.note"
LONGEST = 8000  # MLflow cuts off what is longer: it would be taken for what a person wrote
STATES = {"RUNNING": "running", "FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}


def note_of(run: RunFolder, rows: list[Row], ending: Ending) -> str:
    """Its state, best epoch, recall with its interval; where it lies, and which command goes on with it."""
    epochs, finished = [row for row in rows if "stage_epoch" in row], Finished.read(run.finished)
    state = STATES[ending.status]
    ended = ending.why if ending.why.startswith(state) else ", ".join(filter(None, (state, ending.why)))
    told = [f"**{ended}**. {_best(epochs)}", _tested(finished) if finished else ""]
    return "\n\n".join([*filter(None, told), _place(run)])


def with_own_note(tags: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The tags, with a mark by which our description is known; without it where a person has written another."""
    told, ours = known.get(NOTE_TAG), tags.get(NOTE_TAG, "")[:LONGEST]
    if NOTE_TAG not in tags or (told is not None and known.get(NOTE_MARK) != mark(told)):
        return {key: text for key, text in tags.items() if key != NOTE_TAG}
    return {**tags, NOTE_TAG: ours, NOTE_MARK: mark(ours)}


def mark(text: str) -> str:
    """By which what is there is known as what was written."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _best(epochs: list[Row]) -> str:
    if not epochs:
        return "No epoch is done."
    best = max(epochs, key=selection_value)
    return (
        f"Best epoch: {best['epoch']} of {epochs[-1]['epoch']}, in stage {best['stage']}, "
        f"R@10 {_percent(selection_value(best))} on {protocol(selected_on(best))}, the mean of both directions."
    )


def _tested(finished: Finished) -> str:
    pool = f"{finished.num_test_captions:,} captions and {finished.num_test_images:,} images of test"
    ways = (f"{way.replace('_', ' ')} **{_with_interval(finished.test, f'{way}/R_at_10')}**" for way in DIRECTIONS)
    return f"With it, among {pool}, R@10 is {', '.join(ways)}."


def _with_interval(test: dict[str, float], key: str) -> str:
    bounds = [test[f"{key}_{end}"] for end in ("low", "high") if f"{key}_{end}" in test]
    interval = f" ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})" if len(bounds) == 2 else ""
    return f"{_percent(test[key])}{interval}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _place(run: RunFolder) -> str:
    return f"Its folder: `{run.path.absolute()}`\n\nThe command: `{again(run.study, run.name)}`"
