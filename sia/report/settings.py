"""The settings in which the runs of a study differ, and how tables tell them in short. It loads no torch."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sia.config import Experiment, flatten, varying

PAIR = ("model.gru_layers", "model.latent_size")  # told by the pair's name
SECTIONS = tuple(name for name in Experiment.model_fields if name != "runtime")
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
    return ", then ".join(f"{s.epochs} {s.schedule.name} {rate * s.lr_scale:g}" for s in experiment.stages)


def in_short(many: Sequence[Settings], told_elsewhere: Collection[str] = PAIR) -> list[list[str]]:
    """Each one's settings as `learning_rate=0.003`, without those that are told elsewhere."""
    names = _short_names(
        [key for key in dict.fromkeys(key for one in many for key in one) if key not in told_elsewhere]
    )
    return [[f"{names[key]}={text(value)}" for key, value in one.items() if key in names] for one in many]


def text(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _short_names(keys: list[str]) -> dict[str, str]:
    """Each key's last part; the whole key where two have the same one, or it says nothing alone: `name`, a stage's."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: key if key.startswith("stages.") or short == "name" or last.count(short) > 1 else short
        for key, short in zip(keys, last, strict=True)
    }
