"""The settings in which the runs of a study differ, and how tables tell them in short. It loads no torch."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sia.config import Experiment, flatten, varying

PAIR = ("model.gru_layers", "model.latent_size")  # told by the pair's name
SECTIONS = tuple(name for name in Experiment.model_fields if name != "runtime")
SPEAKING = ("name", "stages", "corpus")  # keys whose values say all: hinge_hardest, but not test, mean or auto
THEN = ", then "  # between the stages of a chain
Settings = Mapping[str, Any]


def differing(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """Of each, its values of the dotted keys in which they differ; of chains of different length, `stages` in words."""
    # Sections that are the same in all need not be taken apart, which counts among a thousand runs.
    sections = {
        name for name in SECTIONS if any(getattr(one, name) != getattr(experiments[0], name) for one in experiments)
    }
    one_length = len({len(one.stages) for one in experiments}) == 1
    flat = [_flat(one, sections, one_length) for one in experiments]
    keys = varying(flat)
    return [{key: one[key] for key in keys if key in one} for one in flat]


def _flat(experiment: Experiment, sections: set[str], every_stage: bool) -> dict[str, Any]:
    values = experiment.model_dump(mode="json", include=sections, exclude={"data": {"folder"}})
    return flatten(values if every_stage else {**values, "stages": stages_text(experiment)})


def stages_text(experiment: Experiment) -> str:
    """For example `120 calr 0.0002, then 30 calr 0.0001`."""
    rate = experiment.optimizer.learning_rate
    return THEN.join(f"{s.epochs} {s.schedule.name} {rate * s.lr_scale:g}" for s in experiment.stages)


def in_short(many: Sequence[Settings], told_elsewhere: Collection[str] = PAIR) -> list[list[str]]:
    """Each one's settings as `learning_rate=0.003`, without those that are told elsewhere."""
    names = _short_names(
        [key for key in dict.fromkeys(key for one in many for key in one) if key not in told_elsewhere]
    )
    return [[f"{names[key]}={text(value)}" for key, value in one.items() if key in names] for one in many]


def telling(many: Sequence[Settings]) -> list[dict[str, Any]]:
    """Each one's settings but those that need not be known to tell them apart: of a loss and its scale, the loss."""
    kept = list(dict.fromkeys(key for one in many for key in one))
    for key in kept[::-1]:
        fewer = [other for other in kept if other != key]
        seen = {tuple(str(one.get(other)) for other in fewer) for one in many}
        if len(seen) == len(many) > 1 and all(any(other in one for other in fewer) for one in many):
            kept = fewer
    return [{key: one[key] for key in kept if key in one} for one in many]


def in_words(many: Sequence[Settings]) -> list[str]:
    """Each one's settings as a figure names them: `hinge_hardest, batch size 64`."""
    keys = [*dict.fromkeys(key for one in many for key in one)]
    if keys == ["stages"]:
        return _restarts([str(one["stages"]) for one in many])
    words = {key: f"{name.replace('_', ' ')} " for key, name in _short_names(keys).items()}
    return [
        ", ".join(
            text(value)
            if key.rpartition(".")[2] in SPEAKING
            else words[key] + text(value).strip("[]").replace(", ", "-")
            for key, value in one.items()
        )
        for one in many
    ]


def _restarts(chains: Sequence[str]) -> list[str]:
    """What follows the stages that all chains begin with: `2 more epochs at 0.0015, then 2 at 0.00075`."""
    parts = [chain.split(THEN) for chain in chains]
    shared = next((n for n, same in enumerate(zip(*parts, strict=False)) if len({*same}) > 1), min(map(len, parts)))
    stages = [[stage.split(" ") for stage in one] for one in parts]
    if not shared or len({schedule for one in stages for _, schedule, _ in one}) > 1:
        return list(chains)
    told = [THEN.join(f"{epochs} at {rate}" for epochs, _, rate in one[shared:]) for one in stages]
    return [one.replace(" at", " more epochs at", 1) or "no restart" for one in told]


def text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _short_names(keys: list[str]) -> dict[str, str]:
    """Each key's last part; the whole key where two have the same one, or it says nothing alone: `name`, a stage's."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: key if key.startswith("stages.") or short == "name" or last.count(short) > 1 else short
        for key, short in zip(keys, last, strict=True)
    }
