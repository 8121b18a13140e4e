"""The guides against the code: trees, commands, settings, links; the front page within its length."""

import argparse
import ast
import re
import runpy
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from desk import REPOSITORY

from sia.benchmark.made_up_corpus import make_up
from sia.cluster.profile import Profile, load_profile
from sia.config import parse_override, resolve
from sia.data.corpora import READERS
from sia.sweep.grid import GridFile, Where, load_grid
from sia.sweep.new_grid import new_grid

GUIDES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("README.md", "[!.]*/README.md", "sia/*/README.md")
    for path in REPOSITORY.glob(pattern)
)
WORDS_OF_FRONT_PAGE = 1500
LINES_OF_FRONT_TREE = 30
BYTES_OF_PICTURE = 200_000
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A module, script or folder that begins a line of a tree, and its clause.
BRANCH = re.compile(r"^(?P<path>[\w./*-]+)  +(?P<clause>\S.*)$")
ROOMS = ("sia", "jobs", "slurm", "sweeps", "tests")


@cache
def text(guide: str) -> str:
    return (REPOSITORY / guide).read_text()


def fences(guide: str, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(text(guide)) if kind == language]


def tree(guide: str) -> list[str]:
    """The paths of the guide's fences of kind `text` in which every line is a path and a clause."""
    found = [body.splitlines() for body in fences(guide, "text")]
    trees = [lines for lines in found if all(BRANCH.match(line) for line in lines)]
    return [match["path"] for lines in trees for line in lines if (match := BRANCH.match(line))]


def twice(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def commands(guide: str) -> list[str]:
    """Each command line of the guide's fences without a language, or between backticks; comments are taken off."""
    lines = [line for body in fences(guide, "") for line in re.sub(r"\\\n\s*", " ", body).splitlines()]
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", text(guide)))
    shown = [*lines, *(" ".join(words.split()) for words in inline)]
    return [line for line in shown if re.match(r"(\.venv/bin/)?python jobs/\w+\.py |make \w", line)]


def examples(script: Path) -> list[str]:
    """The command lines that a command's --help ends with."""
    doc = ast.get_docstring(ast.parse(script.read_text())) or ""
    return [line.strip() for line in doc.partition("\n\nexamples:\n")[2].splitlines()]


SCRIPTS = sorted((REPOSITORY / "jobs").glob("*.py"))
COMMANDS = [(guide, line) for guide in GUIDES for line in commands(guide)]
COMMANDS += [(f"jobs/{script.name}", line) for script in SCRIPTS for line in examples(script)]


class Parsed(Exception):
    """Where a command would begin to act."""


def parsed(script: str, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the command makes of sys.argv; nothing of it is carried out."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser) -> None:
        raise Parsed(parse_args(parser))

    module = runpy.run_path(str(REPOSITORY / "jobs" / script))
    if "parse" in module:  # which looks at flags together
        return module["parse"]()
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(Parsed) as ended:
        module["main"]()
    return ended.value.args[0]


def test_the_front_page_is_short():
    assert len(text("README.md").split()) <= WORDS_OF_FRONT_PAGE
    assert 0 < len(tree("README.md")) <= LINES_OF_FRONT_TREE


def test_the_front_pages_tree_has_every_folder_once():
    named = tree("README.md")
    rooms = {f"{path.relative_to(REPOSITORY)}/" for path in (REPOSITORY / "sia").iterdir() if any(path.glob("*.py"))}
    missing = (rooms | {f"{name}/" for name in ROOMS if name != "sia"}) - set(named)
    assert not missing and not twice(named)
    assert not [path for path in named if not list(REPOSITORY.glob(path))]


def test_the_houses_tree_has_every_module_once():
    house = REPOSITORY / "sia"
    modules = {path.relative_to(house).as_posix() for path in house.rglob("*.py") if path.stat().st_size}
    named = tree("sia/README.md")
    assert (modules - set(named), set(named) - modules, twice(named)) == (set(), set(), set())


@pytest.mark.parametrize(
    ("guide", "pattern"),
    [
        ("jobs/README.md", "jobs/*.py"),
        ("sweeps/README.md", "sweeps/*.yaml"),
        ("slurm/README.md", "slurm/*.yaml"),
        ("slurm/README.md", "slurm/devcluster/[!c]*"),
    ],
)
def test_a_guide_names_every_file_of_its_folder(guide, pattern):
    own = [path for path in REPOSITORY.glob(pattern) if "\n# Written by jobs/new_grid.py" not in path.read_text()]
    assert not [path.name for path in own if not re.search(rf"\b{path.name}\b", text(guide))]


@pytest.mark.parametrize(
    ("guide", "keys"),
    [
        ("slurm/README.md", [*Profile.model_fields]),
        ("sweeps/README.md", [*GridFile.model_fields, *Where.model_fields]),
        ("sia/data/README.md", [*READERS]),
    ],
)
def test_a_guide_names_every_key(guide, keys):
    missing = [key for key in keys if not re.search(rf"`{key}`|`{key}:", text(guide))]
    assert not missing


def test_commands_are_found_in_every_guide_and_each_has_an_example():
    assert {guide for guide, _ in COMMANDS} >= {"README.md", "jobs/README.md", "slurm/README.md", "sweeps/README.md"}
    shown = " ".join(commands("jobs/README.md"))
    assert not [script.name for script in SCRIPTS if script.name not in shown]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_has_an_example_of_the_command(script):
    assert examples(script)
    assert all(line.startswith(f"python jobs/{script.name} ") for line in examples(script))


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    """The grid that new_grid writes for the guides' own corpus, of 40 captions."""
    folder = tmp_path_factory.mktemp("birds")
    corpus = make_up(folder / "corpus", 40, (20, 40), 32, ("train", "train", "validation", "test"))
    (folder / "birds.yaml").write_text(new_grid(corpus.folder, gpus=0, cores=2)[0])
    return folder / "birds.yaml"


@pytest.mark.parametrize(("guide", "line"), COMMANDS)
def test_a_command_is_one_that_the_code_takes(guide, line, birds, monkeypatch):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.chdir(REPOSITORY)
    try:
        arguments = parsed(Path(words[1]).name, monkeypatch)
    except SystemExit as ended:
        pytest.fail(f"{guide}: {line}: exit status {ended.code}")
    if getattr(arguments, "grid", None) is not None:
        arguments.grid = birds if arguments.grid.name == birds.name else arguments.grid
        overrides = dict(parse_override(one) for one in arguments.set)
        points = load_grid(arguments.grid, arguments.miniature, overrides).points
        assert 1 <= (getattr(arguments, "point", None) or 1) <= len(points)
    if getattr(arguments, "profile", None) is not None:
        load_profile(arguments.profile)


@pytest.mark.parametrize("guide", GUIDES)
def test_links_and_paths_lead_somewhere_and_pictures_are_small(guide):
    folder = (REPOSITORY / guide).parent
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text(guide))
    inline = re.findall(r"`([\w./*-]+)`", FENCE.sub("", text(guide)))
    paths = [path for path in inline if path.split("/")[0] in ROOMS and "/" in path]
    paths += re.findall(r"slurm/devcluster/\w+", text(guide))
    assert not [link for link in links if not (folder / link).exists()]
    assert not [path for path in paths if not list(REPOSITORY.glob(path.rstrip("/")))]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text(guide))
    assert all((folder / picture).stat().st_size < BYTES_OF_PICTURE for picture in pictures)


EXAMPLES = [(guide, body) for guide in GUIDES for body in fences(guide, "yaml")]


@pytest.mark.parametrize(("guide", "body"), EXAMPLES)
def test_a_yaml_example_is_one_that_is_read(guide, body, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    path = tmp_path / "example.yaml"
    path.write_text(body)
    given = yaml.safe_load(body)
    if not given.keys() & {"grid", "stages"}:
        load_profile(path)
        return
    for miniature in (False, True)[: 1 + ("miniature" in given)]:
        assert load_grid(path, miniature).points


def test_settings_between_backticks_are_ones_that_are_read():
    shown = re.findall(r"`((?:loss|schedule|model\.image): \{[^`]+\})`", text("sweeps/README.md"))
    assert len(shown) >= 3
    for setting in shown:
        value = yaml.safe_load(setting)
        assert resolve({"stages": [value]} if "schedule" in value else value, source=setting)


def test_the_example_of_one_clip_asks_for_what_a_pair_has():
    (example,) = fences("README.md", "python")
    compile(example, "README.md", "exec")
    pair = (REPOSITORY / "sia" / "inference" / "trained_pair.py").read_text()
    asked = set(re.findall(r"pair\.(\w+)\(", example))
    assert asked and asked <= set(re.findall(r"def (\w+)\(", pair))


def texts_of_the_code() -> list[str]:
    """Each text in the code, with an ellipsis for what is filled in."""
    found = []
    for path in (*(REPOSITORY / "sia").rglob("*.py"), *SCRIPTS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_each_message_that_is_explained_is_one_that_the_code_gives():
    explained = text("jobs/README.md").partition("## Troubleshooting")[2].partition("Of others:")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", explained, re.MULTILINE)
    said = texts_of_the_code()
    assert len(messages) > 20
    assert not [message for message in messages if not any(message.strip("…") in text for text in said)]


def test_the_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "license", "type"} <= citation.keys()
    assert f"version = {citation['version']}\n" in text("setup.cfg")
    (paper,) = citation["references"]
    assert paper["title"] in " ".join(text("README.md").split())
