"""The typed experiment: one pair, its corpus, its optimisation and its chain of stages.

Values come from the defaults below, then a YAML file, then dotted overrides (`optimizer.learning_rate=1e-4`).
The resolved experiment is written into its run folder, and its signature names that folder. This module loads no torch.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from sia.errors import UsageError, UserError
from sia.models.backbones import Backbone, DenseNet
from sia.objectives import Hinge, Loss
from sia.schedules import Calwr, Schedule
from sia.section import Section, validate
from sia.strict_yaml import StrictLoader, what_is_wrong

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Model(Section):
    """The encoder pair (paper, section 4). The defaults are DG3A1024, the paper's best."""

    latent_size: Annotated[int, Field(gt=0, multiple_of=2)] = 1024
    gru_layers: Positive = 3
    image: SerializeAsAny[Backbone] = DenseNet()
    frame_features: Positive = Field(40, description="numbers a speech frame; 40 are the paper's MFCCs")

    @property
    def pair_name(self) -> str:
        """As in the paper: D(enseNet), or the image encoder's own letter, G(RU layers) A(ttention, latent size)."""
        return f"{self.image.letter}G{self.gru_layers}A{self.latent_size}"


class Data(Section):
    """The prepared corpus and what the image branch sees of it (paper, section 5.3)."""

    corpus: str = "places205"
    folder: str = ""
    crop_size: Positive = 224
    short_side: Positive = 256
    flip_probability: Fraction = 0.5
    normalisation: Literal["customary", "corpus"] = "customary"
    standardise_frames: bool = Field(False, description="take the training corpus's mean and deviation out of MFCCs")
    bucket_size: Positive = Field(16, description="captions of similar length are batched within so many batches")
    shuffle_pairs: bool = Field(False, description="a control: train every caption with a wrong image")

    @model_validator(mode="after")
    def crop_fits(self) -> "Data":
        if self.crop_size > self.short_side:
            raise ValueError(f"crop_size {self.crop_size} is larger than short_side {self.short_side}")
        return self

    @property
    def path(self) -> Path:
        return Path(self.folder or f"corpora/{self.corpus}")


class Optimizer(Section):
    """Adam (paper, section 5.2)."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0)] | None = Field(None, description="largest norm of the gradient")


class Training(Section):
    batch_size: Annotated[int, Field(ge=2)] = Field(64, description="captions a step, over all ranks")
    chunk_size: Annotated[int, Field(ge=2)] | None = Field(
        None, description="captions embedded at once, over all ranks; a batch larger than memory goes in such chunks"
    )
    recompute: bool = Field(
        False, description="compute parts of the image branch twice, for a third of its memory; densenet alone has any"
    )
    batch_norm: Literal["sync", "local"] = Field(
        "sync", description="statistics over all ranks' captions, or over each rank's own: those depend on the ranks"
    )
    precision: Literal["auto", "float32", "bf16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    train_recall_sample: Annotated[int, Field(ge=0)] = Field(1000, description="training captions whose R@10 is logged")
    select_on: Literal["validation", "test"] = Field(
        "validation", description="the split that chooses the best epoch; the paper's own protocol is test"
    )


class Stage(Section):
    """One link of the chain; each but the first starts from the best checkpoint of the one before (section 5.2)."""

    epochs: Positive = 127
    lr_scale: Annotated[float, Field(gt=0)] = Field(1.0, description="share of optimizer.learning_rate it starts at")
    schedule: SerializeAsAny[Schedule] = Calwr()
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps over which the rate grows linearly at first"
    )
    keep_moments: bool = Field(False, description="go on with Adam's moments of the checkpoint it starts from")
    start_from: str | None = Field(None, description="best (default), last or epoch=N of the stage before")

    @field_validator("start_from")
    @classmethod
    def names_a_checkpoint(cls, wanted: str | None) -> str | None:
        if wanted is not None and not re.fullmatch("best|last|epoch=[1-9][0-9]*", wanted):
            raise ValueError("use best, last or epoch=N")
        return wanted


class Runtime(Section):
    """What makes a run faster or tidier without changing what is learnt."""

    num_workers: Annotated[int, Field(ge=0)] = 2
    keep_every_epochs: Annotated[int, Field(ge=0)] = Field(
        10, description="also keep every Nth epoch's weights; 0: none"
    )
    evaluation_batch_size: Positive = 64
    log_every_seconds: Annotated[float, Field(gt=0)] = 10.0
    image_cache_gb: Annotated[float, Field(ge=0)] = Field(
        0.0, description="memory of a rank for decoded training images, shared among its workers"
    )


class Experiment(Section):
    """All that decides what one run learns, and a `runtime` that does not."""

    model: Model = Model()
    data: Data = Data()
    loss: SerializeAsAny[Loss] = Hinge()
    optimizer: Optimizer = Optimizer()
    training: Training = Training()
    stages: Annotated[list[Stage], Field(min_length=1)] = [Stage()]
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def recomputes_what_it_has(self) -> "Experiment":
        if self.training.recompute and not self.model.image.recomputable:
            raise ValueError(f"training.recompute: {self.model.image.name} has no part that is; leave it out")
        return self

    @property
    def signature(self) -> str:
        """Ten hexadecimal digits of the hash of what is signed."""
        return hashlib.sha256(self.signed.encode()).hexdigest()[:10]

    @property
    def signed(self) -> str:
        """Every resolved value as JSON, without NOT_IN_SIGNATURE, and without what ADDED says was implied before."""
        values = self.model_dump(mode="json")
        for dotted in NOT_IN_SIGNATURE:
            _leave_out(values, dotted)
        for dotted, added in ADDED.items():
            _leave_out(values, dotted, added.implied)
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def run_name(self) -> str:
        return f"{self.model.pair_name}-{self.signature}"


NOT_IN_SIGNATURE = {
    "data.folder": "the same corpus may lie elsewhere; its identity is recorded beside the signature and checked",
    "training.recompute": "the same is learnt in less memory, so that a run which had too little goes on with it",
    "runtime": "workers, retention and logging change how a run is carried out, not what it learns",
}


class Added(NamedTuple):
    """A key that came later: the version it came with, and the value that earlier versions implied."""

    since: str
    implied: Any


# A key that comes after version 0.1 goes here, or every run of before is renamed and trained anew. It stays out of
# signatures while it has the value that earlier versions implied, which is its default, too: their configurations are
# read without it. `stages.KEY` is that of every stage, `loss.KEY` that of each loss which has it; a whole section goes
# here as one key. What was written stays readable in the same way elsewhere: who raises LAYOUT_VERSION (sia/data/
# shards.py) or CHECKPOINT_VERSION (sia/checkpoint/state.py) keeps the reader of the version before.
ADDED: dict[str, Added] = {}


def _leave_out(values: Any, dotted: str, *implied: Any) -> None:
    """Delete the dotted key below `values`, in each item of a list; where a value is given, only if it has that."""
    for one in values if isinstance(values, list) else [values]:
        key, _, below = dotted.partition(".")
        if below:
            _leave_out(one.get(key, {}), below, *implied)
        elif key in one and (not implied or one[key] in implied):
            del one[key]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError for a missing file, UsageError for one that is no mapping."""
    try:
        value = yaml.load(path.read_text(), StrictLoader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give the path of an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML: {what_is_wrong(error)}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected 'key: value' lines, found {type(value).__name__}")
    return value


def parse_override(text: str) -> tuple[str, Any]:
    """'optimizer.learning_rate=1e-4' -> its key and its value, read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text}: expected key=value, for example training.batch_size=32")
    try:
        return key.strip(), yaml.load(value, StrictLoader)
    except yaml.YAMLError:
        raise UsageError(f"--set {text}: the value is not valid YAML") from None


def nest(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """{'model.gru_layers': 2} -> {'model': {'gru_layers': 2}}; keys may also be nested already."""
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        branch, names, depth = nested, str(key).split("."), 0
        while depth + 1 < len(names) and isinstance(branch.get(names[depth]), dict):
            branch, depth = branch[names[depth]], depth + 1
        value = nest(value) if isinstance(value, Mapping) else value
        for name in reversed(names[depth + 1 :]):
            value = {name: value}
        branch[names[depth]] = merge(branch.get(names[depth], {}), value, ".".join(names[: depth + 1]) + ".")
    return nested


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`; items of a list of mappings count from 1, a list of plain values becomes its JSON text."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return flat


def varying(many: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of these flat mappings whose values are not the same in all that have them."""
    first: dict[str, Any] = {}
    differ = {key for one in many for key, value in one.items() if first.setdefault(key, value) != value}
    return [key for key in first if key in differ]


def merge(below: Any, above: Any, at: str = "") -> Any:
    """`above` laid over `below`: mappings key by key, {'2': value} over a list's second item, everything else replaced.

    A word below a mapping is the name of a kind, as in `schedule: calr`.
    Raises UsageError for an item that the list, found at the dotted key `at`, does not have.
    """
    if isinstance(below, str) and isinstance(above, Mapping):
        below = {"name": below}
    if isinstance(below, list) and isinstance(above, Mapping):
        return _merge_items(below, above, at)
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: merge(below.get(key, {}), value, f"{at}{key}.") for key, value in above.items()}}


def _merge_items(below: list[Any], above: Mapping[str, Any], at: str) -> list[Any]:
    merged = list(below)
    for key, value in above.items():
        if not key.isdecimal() or not 1 <= int(key) <= len(below):
            raise UsageError(f"unknown key {at + key!r}; its items are numbered 1 to {len(below)}")
        merged[int(key) - 1] = merge(below[int(key) - 1], value, f"{at}{key}.")
    return merged


def resolve(*layers: Mapping[str, Any], source: str) -> Experiment:
    """The experiment of the defaults with the layers laid over them. Raises UsageError naming `source` and the key."""
    values: dict[str, Any] = {"stages": [{}]}
    for layer in layers:
        try:
            values = merge(values, nest(layer))
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from None
    return validate(Experiment, values, source)


def load_experiment(path: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    return resolve(read_yaml(path), overrides or {}, source=str(path))


def dump_experiment(experiment: Experiment) -> str:
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
