"""The typed experiment: what it refuses, what lies over what, and what its signature means."""

import math
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from sia.cluster.profile import Profile
from sia.config import (
    ADDED,
    NOT_IN_SIGNATURE,
    Added,
    Data,
    Experiment,
    Stage,
    dump_experiment,
    flatten,
    load_experiment,
    nest,
    parse_override,
    read_yaml,
    resolve,
)
from sia.errors import UsageError, UserError
from sia.models.backbones import Backbone
from sia.objectives import Loss
from sia.run.folder import RunFolder
from sia.schedules import Cylr, Schedule
from sia.section import Kind, Section, cure_of, known_keys, validate
from sia.sweep.grid import GridFile


def refused(*layers: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(*layers, source="some.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("some.yaml: ")
    return str(caught.value)


def unknown(wrong: str, near: str) -> str:
    return f"unknown key {wrong!r}; the nearest valid one is {near!r}"


@pytest.mark.parametrize(
    ("values", "key", "said"),
    [
        ({"optimiser": {"learning_rate": 1e-4}}, "", unknown("optimiser", "optimizer")),
        ({"optimizer": {"learning_rat": 1}}, "", unknown("optimizer.learning_rat", "optimizer.learning_rate")),
        ({"training.batchsize": 8}, "", unknown("training.batchsize", "training.batch_size")),
        ({"model": {"gru_layer": 3, "latent_size": -1}}, "", unknown("model.gru_layer", "model.gru_layers")),
        ({"stages": [{"epochs": 1}, {"epoch": 3}]}, "", unknown("stages.2.epoch", "stages.2.epochs")),
        ({"model.image_blocks": [1]}, "", unknown("model.image_blocks", "model.image.blocks")),
        ({"stages": [{"multiplier": 2}]}, "", unknown("stages.1.multiplier", "stages.1.schedule.multiplier")),
        ({"model": {"latent_size": 7}}, "model.latent_size: ", "multiple of 2"),
        ({"model": {"gru_layers": 0}}, "model.gru_layers: ", "more than 0"),
        ({"model": {"image": {"blocks": []}}}, "model.image.blocks: ", "1 or more values"),
        ({"loss": {"normaliser": "median"}}, "loss.normaliser: ", "'mean' or 'sum'"),
        ({"training": {"batch_size": "many"}}, "training.batch_size: ", "a whole number"),
        ({"training": {"precision": "fp16"}}, "training.precision: ", "'auto', 'float32' or 'bf16'"),
        ({"training.recompute": True, "model.image": "resnet"}, "training.recompute: ", "resnet has no part that is"),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate: ", "finite"),
        ({"data": {"flip_probability": 1.5}}, "data.flip_probability: ", "1 or less"),
        ({"data": {"crop_size": 300}}, "data: ", "crop_size 300 is larger than short_side 256"),
        ({"stages": []}, "stages: ", "1 or more values"),
        ({"stages": [{"schedule": "cosine"}]}, "stages.1.schedule: ", "'calr', 'calwr', 'cylr'"),
        ({"loss": {"name": "triplet"}}, "loss.name: ", "'hinge', 'hinge_hardest'"),
        ({"loss": {"name": ["hinge"]}}, "loss.name: ", "'hinge', 'hinge_hardest'"),
        ({"loss": 3}, "loss: ", "keys with their values"),
        ({"stages": [{"schedule": {"multiplier": 0}}]}, "stages.1.schedule.multiplier: ", "more than 0"),
        ({"model": 3}, "model: ", "3"),
        ({"model": None}, "model: ", "keys with their values"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key_and_what_is_allowed(values, key, said):
    assert f"some.yaml: {key}" in refused(values) and said in refused(values)


def test_an_unknown_key_of_a_file_or_the_command_line_names_the_file(tmp_path):
    file = tmp_path / "pair.yaml"
    file.write_text("model: {latentsize: 64}\n")
    with pytest.raises(UsageError, match=rf"{file}: unknown key 'model.latentsize'.*'model.latent_size'"):
        load_experiment(file)
    file.write_text("model: {latent_size: 64}\n")
    said = rf"{file}: .*'loss.margn'; the nearest valid one is 'loss.margin'; hinge takes normaliser, margin"
    with pytest.raises(UsageError, match=said):
        load_experiment(file, dict([parse_override("loss.margn=0.1")]))


def test_what_is_given_twice_in_different_shapes_is_joined_or_the_later_stands():
    for dotted in ({"a.b": 1, "a": {"c": 2}}, {"a": {"c": 2}, "a.b": 1}):
        assert nest(dotted) == {"a": {"b": 1, "c": 2}}
    assert nest({"model": 3, "model.gru_layers": 2}) == {"model": {"gru_layers": 2}}
    assert nest({"loss": "info_nce", "loss.temperature": 1}) == {"loss": {"name": "info_nce", "temperature": 1}}
    assert "model: " in refused({"model.gru_layers": 2, "model": 3})


def test_many_keys_are_nested_in_no_time():
    began = time.process_time()
    assert len(nest({f"a.k{number}": number for number in range(50_000)})["a"]) == 50_000
    assert time.process_time() - began < 10


def test_an_item_of_a_list_is_overridden_by_its_number():
    chain = {"stages": [{"epochs": 9}, {"epochs": 4, "schedule": "calr"}]}
    stages = resolve(chain, {"stages.2.epochs": 2, "stages.1": {"schedule": "constant"}}, source="--set").stages
    assert [(stage.epochs, stage.schedule.name) for stage in stages] == [(9, "constant"), (2, "calr")]
    assert resolve({"stages.1.epochs": 3}, source="--set").stages == [Stage(epochs=3)], "of the default chain"
    blocks = {"model.image.blocks": [1, 2, 3]}
    assert resolve(blocks, {"model.image.blocks.2": 8}, source="--set").model.image.blocks == [1, 8, 3]


FAMILIES = {"loss": Loss, "stages.1.schedule": Schedule, "model.image": Backbone}
KINDS = [(key, name) for key, family in FAMILIES.items() for name in family.kinds() if "of_a_test" not in name]


@pytest.mark.parametrize(("key", "name"), KINDS)
def test_a_kind_has_its_own_keys_alone(key: str, name: str):
    kinds = FAMILIES[key].kinds()
    valid = [field for field in kinds[name].model_fields if field != "name"]
    for other in {field for kind in kinds.values() for field in kind.model_fields} - {"name", *valid}:
        said = refused({key: {"name": name}}, {f"{key}.{other}": 1})
        assert f"unknown key '{key}.{other}'; {name} takes {', '.join(valid) or 'no settings'}" in said
    assert resolve({key: name}, source="test") == resolve({key: {"name": name}}, source="test")


@pytest.mark.parametrize(("key", "name"), KINDS)
def test_the_signature_changes_with_every_key_of_a_kind(key: str, name: str):
    signatures = [resolve({key: name}, source="test").signature]
    for field, value in leaves(FAMILIES[key].kinds()[name]()).items():
        chosen = {key: {"name": name, field: [2, 3, 4, 6] if name == "resnet" else value}}
        signatures.append(resolve(chosen, source="test").signature)
    assert len(set(signatures)) == len(signatures)


def test_a_kinds_name_alone_may_be_overridden_key_by_key_and_another_kind_keeps_none_of_them():
    chain = {"stages": [{"epochs": 9}, {"schedule": "cylr"}]}
    found = resolve(chain, {"stages.2.schedule.period_epochs": 3}, source="--set")
    assert found.stages[1].schedule == Cylr(period_epochs=3)
    assert "'loss.margin'; info_nce takes" in refused({"loss": {"margin": 0.1}}, {"loss.name": "info_nce"})
    assert resolve({"loss": {"margin": 0.1}}, {"loss": "info_nce"}, source="test").loss.name == "info_nce"


@pytest.mark.parametrize("key", ["stages.0.epochs", "stages.3.epochs", "stages.last.epochs", "stages.-1.epochs"])
def test_an_item_that_a_list_lacks_is_refused(key):
    chain = {"stages": [{"epochs": 9}, {"epochs": 4}]}
    for layers in ((chain, {key: 2}), ({**chain, key: 2},)):
        assert f"unknown key '{key.removesuffix('.epochs')}'; its items are numbered 1 to 2" in refused(*layers)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model:\n  gru_layers: 2\n  gru_layers: 3\n", "'gru_layers' is given twice"),
        (b"loss: {margin: 0.1}\nmodel: {}\nloss: {margin: 0.2}\n", "'loss' is given twice"),
        (b"- a\n- b\n", "expected 'key: value' lines, found list"),
        (b"just words\n", "found str"),
        (b"", "found NoneType"),
        (b"a: [1, 2\n", "not valid YAML"),
        (b"when: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        (b"\xff\xfe\x00model", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_strict_mapping_is_a_usage_error(tmp_path, content, said):
    file = tmp_path / "pair.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_yaml(file)
    assert said in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=str(path)) as caught:
            read_yaml(path)
        assert caught.value.exit_status == 1


@pytest.mark.parametrize("text", ["training.batch_size", "=3", " =3", "training.seed=[1", "training.seed=a: b: c"])
def test_an_override_that_is_no_key_and_value_is_a_usage_error(text):
    with pytest.raises(UsageError, match="--set"):
        parse_override(text)


def test_an_override_value_is_read_as_yaml():
    assert parse_override("model.image.blocks=[1, 2]") == ("model.image.blocks", [1, 2])
    assert parse_override("data.flip_probability=0") == ("data.flip_probability", 0)
    assert parse_override("data.folder=a=b") == ("data.folder", "a=b")


def test_defaults_lie_below_the_file_and_the_file_below_overrides(tmp_path):
    """Key by key, but lists are replaced."""
    file = tmp_path / "pair.yaml"
    file.write_text("training: {batch_size: 32, seed: 5}\nmodel.gru_layers: 2\nstages: [{epochs: 3}, {epochs: 2}]\n")
    found = load_experiment(file, {"training": {"batch_size": 16}, "stages": [{"epochs": 9}]})
    assert (found.training.batch_size, found.training.seed, found.model.gru_layers) == (16, 5, 2)
    assert found.model.latent_size == Experiment().model.latent_size and found.stages == [Stage(epochs=9)]


def test_numbers_that_yaml_takes_for_text_become_numbers(tmp_path):
    file = tmp_path / "pair.yaml"
    file.write_text("optimizer: {learning_rate: 2e-4}\n")
    assert read_yaml(file)["optimizer"]["learning_rate"] == "2e-4"  # YAML 1.1 wants a dot
    assert load_experiment(file) == resolve({"optimizer.learning_rate": 0.0002}, source="test")


def test_the_signature_is_the_same_in_any_order_and_in_every_process():
    forward = {"loss": {"margin": 0.1}, "model": {"gru_layers": 2, "latent_size": 64}}
    backward = {"model": {"latent_size": 64, "gru_layers": 2}, "loss": {"margin": 0.1}}
    code = f"from sia.config import resolve; print(resolve({backward}, source='').signature)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert printed.stdout.strip() == resolve(forward, source="test").signature


def leaves(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> another valid value, of every field below `section`; lists of sections by their first."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Kind):
            found[f"{prefix}{name}.name"] = next(kind for kind in field.annotation.kinds() if kind != value.name)
        if isinstance(value, BaseModel):
            found |= leaves(value, f"{prefix}{name}.")
        elif name != "name":
            found[prefix + name] = another(name, value, field.annotation)
    return found


def another(name: str, value: Any, annotation: Any) -> Any:
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 2 if isinstance(value, int) else (value or 1.0) / 2
    if isinstance(value, str):
        return value + "x"
    if value is None:
        return {"gradient_clip": 5.0, "chunk_size": 16, "start_from": "last"}[name]
    return [*value, value[-1]]


LEAVES = leaves(Experiment()) | {f"stages.{key}": value for key, value in leaves(Stage()).items()}


def with_leaf(key: str) -> Experiment:
    place, _, below = key.partition(".")
    values = {"stages": [nest({below: LEAVES[key]})]} if place == "stages" and below else {key: LEAVES[key]}
    return resolve(values, source="test")


def test_the_signature_changes_with_every_learnt_field_and_with_no_other():
    assert set(NOT_IN_SIGNATURE) == {"data.folder", "training.recompute", "runtime"}
    assert {key.partition(".")[0] for key in LEAVES} == set(Experiment.model_fields) and len(LEAVES) > 30
    changed = {key: with_leaf(key) for key in LEAVES}
    harmless = {key for key in LEAVES if key in NOT_IN_SIGNATURE or key.startswith("runtime.")}
    assert Experiment() not in changed.values()
    assert {changed[key].signature for key in harmless} == {Experiment().signature}
    learnt = {key: changed[key].signature for key in LEAVES.keys() - harmless}
    assert len({*learnt.values(), Experiment().signature}) == len(learnt) + 1


class LaterHinge(Loss):
    name: Literal["later_hinge_of_a_test"] = "later_hinge_of_a_test"
    slack: float = 0.0


class LaterStage(Stage):
    cooldown_steps: int = 0


class LaterData(Data):
    noise: dict[str, float] = {"level": 0.0}


class Later(Experiment):
    """The experiment of a later version, with keys that this one does not have."""

    data: LaterData = LaterData()
    stages: list[LaterStage] = [LaterStage()]


LATER = {"data.noise": Added("9.1", {"level": 0.0}), "stages.cooldown_steps": Added("9.1", 0)}


def test_a_later_key_renames_no_run_of_an_earlier_version(monkeypatch):
    written = [{}, {"loss.margin": 0.1, "stages": [{"epochs": 2}, {"epochs": 1, "lr_scale": 0.5}]}]
    earlier = [resolve(values, source="test") for values in written]
    read = [Later.model_validate(yaml.safe_load(dump_experiment(one))) for one in earlier]
    assert [one.signature for one in read] != [one.signature for one in earlier], "without the table"
    monkeypatch.setattr("sia.config.ADDED", LATER)
    assert [one.signature for one in read] == [one.signature for one in earlier]
    new = Later(data=LaterData(noise={"level": 0.1})), Later(stages=[LaterStage(), LaterStage(cooldown_steps=5)])
    assert len({Experiment().signature, *(one.signature for one in new)}) == 3


def test_a_later_key_of_a_kind_renames_no_run(monkeypatch):
    plain, slack = ({"loss": {"name": "later_hinge_of_a_test", "slack": value}} for value in (0.0, 0.5))
    before = Experiment().signature
    monkeypatch.setattr("sia.config.ADDED", {"loss.slack": Added("9.1", 0.0)})
    assert resolve(plain, source="test").signature != resolve(slack, source="test").signature
    assert '"slack"' not in resolve(plain, source="test").signed and Experiment().signature == before


def test_a_key_that_was_added_has_by_default_what_earlier_versions_implied():
    """Else a configuration of before, which lacks the key, would mean another run when it is read now."""
    fields = flatten(resolve({"stages": [{}]}, source="test").model_dump(mode="json"))
    for dotted, added in ADDED.items():
        assert fields[dotted.replace("stages.", "stages.1.")] == added.implied, dotted


def test_an_experiment_written_and_read_again_is_the_same(tmp_path):
    written = resolve(
        {"optimizer.learning_rate": 1 / 3, "data.folder": "/a b: c", "stages": [{"epochs": 2}, {"start_from": "last"}]},
        source="test",
    )
    file = tmp_path / "config.yaml"
    file.write_text(dump_experiment(written))
    assert load_experiment(file) == written
    assert load_experiment(file).signature == written.signature
    assert set(yaml.safe_load(file.read_text())) == set(Experiment.model_fields)


def test_the_run_is_named_by_pair_and_signature():
    found = resolve({"model.gru_layers": 4, "model.latent_size": 2048}, source="test")
    assert found.run_name == f"DG4A2048-{found.signature}"
    assert found.data.path == Path("corpora/places205")
    assert resolve({"data.folder": "/elsewhere"}, source="test").data.path == Path("/elsewhere")


def repeated(names: str, form: str) -> str:
    """YAML in which each name stands for nine of the one before."""
    lines = (f"{new}: &{new} {form.format(', '.join([f'*{old}'] * 9))}" for old, new in pairwise(names))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        f"model: {'[' * 1200}{']' * 1200}",
        f"model: {'{a: ' * 3000}1{'}' * 3000}",
        "\n".join(f"{' ' * level}a:" for level in range(3000)),
        "a: &a [x, x, x, x, x, x, x, x, x]\n" + repeated("abcdefghi", "[{}]"),
        "a: &a {x: 1}\n" + repeated("abcdefgh", "{{<<: [{}]}}"),
        "model: &a {gru_layers: *a}",
    ],
    ids=["lists", "mappings", "indented", "aliases", "merges", "circle"],
)
def test_what_would_take_for_ever_is_refused_in_a_line(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    began = time.process_time()
    for read in (load_experiment, lambda path: RunFolder(path.parent).experiment()):
        with pytest.raises(UsageError, match=r"config\.yaml: ") as caught:
            read(file)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.process_time() - began < 20


GIVEN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=2) | st.dates(),
    lambda below: (
        st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(["name", "epochs", 1]), below, max_size=2)
    ),
    max_leaves=4,
)
MODELS = (Experiment, GridFile, Profile)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([(model, key) for model in MODELS for key in known_keys(model, "1")]), GIVEN)
def test_whatever_is_wrong_is_told_in_our_own_words(place, value):
    model, key = place
    try:
        validate(model, nest({key: value}), "x.yaml")
    except UsageError as error:
        said = str(error)
        assert "\n" not in said and said.startswith("x.yaml: ")
        assert not re.search("should|valid (str|int|num|list|dict)|required|Extra|nable to|error,|Keys", said), said


def bounds(model: type[BaseModel]) -> set[Any]:
    """All that the keys below a model are held to, such as Ge(ge=1)."""
    found: set[Any] = set()
    for field in model.model_fields.values():
        waiting = [*field.metadata, field.annotation]
        while waiting:
            one = waiting.pop()
            if isinstance(one, type) and issubclass(one, Section):
                kinds = one.kinds().values() if issubclass(one, Kind) and one.is_family() else [one]
                found |= set().union(*(bounds(kind) for kind in kinds))
            elif get_origin(one) is not None:
                waiting += get_args(one)
            elif type(one).__module__ == "annotated_types":
                found.add(one)
    return found


def test_every_bound_that_a_key_has_is_told_in_our_words() -> None:
    wrong = {"ge": -math.inf, "gt": -math.inf, "le": math.inf, "lt": math.inf, "multiple_of": 0.5}
    found = set().union(*(bounds(model) for model in (Experiment, GridFile, Profile)))
    assert {name for bound in found for name in asdict(bound)} >= {"ge", "gt", "le", "min_length", "max_length"}
    for bound in found:
        (name,) = asdict(bound)
        kind, value = (float, wrong[name]) if name in wrong else (list, [0] * (99 * (name == "max_length")))
        with pytest.raises(ValidationError) as refused:
            TypeAdapter(Annotated[kind, bound]).validate_python(value)
        (fault,) = refused.value.errors()
        assert cure_of(fault) != fault["msg"] and cure_of(fault).startswith("give "), bound
    with pytest.raises(UsageError, match=r"^f: model.image.blocks: give 4 values or fewer, not \[2, 2, 2, 2, 2\]$"):
        validate(Experiment, {"model": {"image": {"name": "resnet", "blocks": [2] * 5}}}, "f")
