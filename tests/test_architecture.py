"""Imports run downward only: read off the source, and off what a process has loaded."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

import pytest
from desk import REPOSITORY

MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((REPOSITORY / "sia").rglob("*.py"))
}
# A login node that submits or asks for status loads no other module that needs seconds to be loaded.
HEAVY = {"torch", "torchaudio", "torchvision", "ray", "mlflow"}
MAY_BE_HEAVY = (
    *("sia.losses", "sia.recall", "sia.distributed", "sia.embedding", "sia.models", "sia.training", "sia.inference"),
    *("sia.data.caption_files", "sia.data.images", "sia.data.loader", "sia.data.mfcc"),
    *("sia.checkpoint.background", "sia.checkpoint.state"),
    *("sia.evaluation.evaluate", "sia.trackers.mlflow.model", "sia.benchmark", "sia.gallery"),
)
LIGHT_ALL_THE_SAME = (
    *("sia.models.backbones", "sia.models.sizes", "sia.training.preemption", "sia.training.provenance"),
    "sia.inference.pair_settings",
)
RANKS = ("torch.distributed", "torch.nn.parallel")  # only training and evaluation know of them
FILE_ACCESS = {"h5py", "pathlib", "os", "io", "shutil", "sia.atomic", "sia.run.folder", "sia.data.shards"}
# A floor loads what stands on its own or a lower line; a line's modules may load each other, without a cycle.
FLOORS = [
    {"errors", "atomic", "strict_yaml", "section", "clock", "gate", "progress", "command", "orphans", "git", "imports"}
    | {"checks", "fitted_table"},
    {"config", "losses", "objectives", "schedules", "models"},
    {"run"},
    {"recall", "distributed", "data"},
    {"checkpoint"},
    {"embedding"},
    {"training"},
    {"cluster", "inference"},
    {"evaluation", "trackers"},
    {"report", "gallery", "operate", "doctor"},
    {"sweep", "rehearsal", "benchmark"},
]


@cache
def imports(name: str, at_load: bool = False) -> frozenset[str]:
    """What a module imports anywhere, or only when it is loaded; of sia, the modules themselves."""
    tree = ast.parse(MODULES[name].read_text())
    nodes = _outside_functions(tree) if at_load else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= submodules or {str(node.module)}
    return frozenset(found)


def _outside_functions(tree: ast.AST) -> list[ast.AST]:
    """The nodes that are carried out when the module is loaded; what is for the type checker alone is left out."""
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not for_types:
            nodes += [child, *_outside_functions(child)]
    return nodes


def ours(names: frozenset[str]) -> set[str]:
    return {name for name in names if name == "sia" or name.startswith("sia.")}


def floor_of(module: str) -> int:
    part = module.split(".")[1]
    return next(number for number, floor in enumerate(FLOORS) if part in floor)


def among(names: Iterable[str], *packages: str) -> list[str]:
    """The names that are these packages or lie in them."""
    return [name for name in names if any(name == one or name.startswith(f"{one}.") for one in packages)]


def inside(*packages: str) -> list[str]:
    return among(MODULES, *packages)


def test_every_part_of_sia_has_a_floor():
    parts = {name.split(".")[1] for name in MODULES if "." in name}
    assert parts == set().union(*FLOORS)


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_imports_run_downward_only(name):
    higher = {one for one in ours(imports(name)) if one != "sia" and floor_of(one) > floor_of(name)}
    assert not higher, f"{name} stands below {', '.join(sorted(higher))}"


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("sia.data", ("sia.training", "sia.embedding", "sia.models", "sia.cluster", "sia.sweep", "sia.report")),
        ("sia.models", ("sia.training", "sia.embedding", "sia.data", "sia.cluster", "sia.sweep")),
        ("sia.trackers", ("sia.cluster", "sia.sweep", "sia.report", "ray")),
        ("sia.training", ("sia.cluster", "sia.evaluation", "sia.sweep", "sia.report", "submitit", "ray", "mlflow")),
        ("sia.cluster", ("sia.sweep", "sia.report", "ray", "mlflow")),
        ("sia.report", ("sia.sweep", "sia.cluster.submit", "ray")),
        ("sia", ("jobs", "tests")),
        *((package, RANKS) for package in ("sia.losses", "sia.recall", "sia.data", "sia.models")),
    ],
)
def test_a_package_never_imports(package, never):
    found = {name: wrong for name in inside(package) if (wrong := among(imports(name), *never))}
    assert not found


@pytest.mark.parametrize("name", ["sia.losses", "sia.recall", "sia.schedules", "sia.data.sampler"])
def test_losses_recall_schedules_and_the_sampler_stand_alone_and_touch_no_file(name):
    assert not ours(imports(name)) - {"sia.errors", "sia.section"}
    assert not FILE_ACCESS & imports(name)
    calls = [node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if ast.unparse(call.func) in ("open", "print")]


def test_no_module_imports_itself_through_others():
    # A package that imports from its own modules is no cycle; two modules that need each other are.
    graph = {name: ours(imports(name)) & MODULES.keys() for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for below in sorted(graph[name]):
                visit(below, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_a_command_is_one_screen_and_imports_only_sia(path):
    modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    assert not {module for module in modules if module.startswith(("jobs", "tests"))}
    assert len(path.read_text().splitlines()) < 100


def test_no_file_is_too_long_to_read():
    assert not [name for name, path in MODULES.items() if len(path.read_text().splitlines()) > 300]


def loaded_after(code: str) -> set[str]:
    code = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {*inside(*MAY_BE_HEAVY)} | {*LIGHT_ALL_THE_SAME}))
def test_what_a_login_node_needs_loads_no_torch(name):
    seen: set[str] = set()
    waiting = {name}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        # Loading a.b.c loads a and a.b, too.
        packages = {module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)}
        needed = imports(module, at_load=True)
        assert not {one.partition(".")[0] for one in needed} & HEAVY, module
        waiting |= (ours(needed) | packages) & MODULES.keys() - seen


def test_submitting_and_asking_for_status_load_neither_torch_nor_ray():
    modules = "sia.sweep.drive, sia.sweep.plan_table, sia.sweep.grid, sia.operate.watch, sia.run.state"
    loaded = loaded_after(f"import {modules}, sia.cluster.submit, sia.sweep.corpora")
    assert not {*HEAVY, "submitit", "matplotlib"} & loaded
    assert "pydantic" in loaded, "the list is read off rightly"


def test_ranks_meet_before_torchvision_is_loaded():
    """It takes as long as torch does, and half of that is a compiler that training does not need."""
    modules = "sia.cluster.stage_job, sia.distributed, sia.training.finish, sia.training.fit, sia.training.provenance"
    loaded = loaded_after(f"import {modules}")
    assert "torch" in loaded and not {"torchvision", "sympy", "torchaudio"} & loaded


def test_the_status_command_loads_no_torch():
    status = str(REPOSITORY / "jobs" / "status.py")
    code = "import contextlib, runpy, sys\nsys.argv = ['status.py']\nwith contextlib.suppress(SystemExit):\n"
    assert not {*HEAVY, "matplotlib"} & loaded_after(f"{code}    runpy.run_path({status!r}, run_name='__main__')")


def test_one_folder_knows_the_default_tracker():
    told = {
        "sia/README.md": "tells what each file is",
        "sia/run/README.md": "tells people what they see",
    }
    files = [path for path in (REPOSITORY / "sia").rglob("*") if path.suffix in (".py", ".md", ".yaml")]
    named = {str(path.relative_to(REPOSITORY)) for path in files if "mlflow" in path.read_text().lower()}
    assert not {path for path in named if not path.startswith("sia/trackers/")} - told.keys()


def test_only_the_package_is_installed():
    for name in ("jobs", "sweeps", "slurm"):
        assert not (REPOSITORY / name / "__init__.py").exists()
