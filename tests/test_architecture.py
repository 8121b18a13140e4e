"""Imports run downward only: read off the source, and off what a process has loaded."""

import ast
import subprocess
import sys
from functools import cache

import pytest
from desk import REPOSITORY

MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((REPOSITORY / "sia").rglob("*.py"))
}
NO_TORCH = [
    *(
        "sia.config",
        "sia.section",
        "sia.objectives",
        "sia.schedules",
        "sia.models.backbones",
        "sia.errors",
        "sia.atomic",
        "sia.clock",
        "sia.run.lock",
        "sia.gate",
        "sia.run.folder",
        "sia.command",
    ),
    *(
        "sia.models.parameter_counts",
        "sia.data.manifest",
        "sia.data.sampler",
        "sia.data.shards",
        "sia.data.prepared_corpus",
    ),
    *(
        "sia.run.metrics",
        "sia.run.selection",
        "sia.checkpoint.chosen",
        "sia.checkpoint.plan",
        "sia.trackers.mlflow.mirror",
    ),
    *("sia.run.state", "sia.cluster.profile", "sia.cluster.submit", "sia.cluster.stage_job", "sia.cluster.end_jobs"),
    *("sia.sweep.grid", "sia.cluster.launch", "sia.sweep.plan_table", "sia.sweep.chain", "sia.sweep.drive"),
    *(
        "sia.operate.watch",
        "sia.sweep.corpora",
        "sia.sweep.detach",
        "sia.operate.status",
        "sia.operate.logs",
        "sia.operate.cancel",
    ),
    *(
        "sia.sweep.take_up",
        "sia.operate.retry",
        "sia.operate.retention",
        "sia.operate.leftovers",
        "sia.operate.track",
        "sia.sweep.train_here",
    ),
    *(
        "sia.cluster.snapshot",
        "sia.cluster.task",
        "sia.cluster.corpus_jobs",
        "sia.cluster.accounting",
    ),
    *(
        "sia.evaluation.job",
        "sia.doctor.diagnose",
        "sia.data.staging",
        "sia.data.caption_index",
        "sia.data.verify",
    ),
    *("sia.data.corpora", "sia.data.hdf5_path", "sia.data.corpus_record"),
    *("sia.operate.status_table", "sia.operate.live_status", "sia.operate.damage", "sia.report.fitted_table"),
    *("sia.report.settings", "sia.git", "sia.run.queue", "sia.cluster.refusal"),
    *("sia", "sia.inference.settings"),
]
FILE_ACCESS = {"h5py", "pathlib", "os", "io", "shutil", "sia.atomic", "sia.run.folder", "sia.data.shards"}
# A floor loads what stands on its own or a lower line; a line's modules may load each other, without a cycle.
FLOORS = [
    {"errors", "atomic", "strict_yaml", "section", "clock", "gate", "progress", "command", "orphans", "git"}
    | {"checks"},
    {"config", "losses", "objectives", "schedules", "models"},
    {"run"},
    {"recall", "distributed", "data"},
    {"checkpoint"},
    {"embedding"},
    {"training"},
    {"cluster", "inference"},
    {"evaluation", "trackers"},
    {"report", "operate", "doctor"},
    {"sweep", "rehearsal"},
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


def inside(*packages: str) -> list[str]:
    return [name for name in MODULES if any(name == one or name.startswith(f"{one}.") for one in packages)]


def loads(name: str, packages: tuple[str, ...]) -> list[str]:
    return [
        one for one in imports(name) if any(one == package or one.startswith(f"{package}.") for package in packages)
    ]


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
    ],
)
def test_a_package_never_imports(package, never):
    found = {name: wrong for name in inside(package) if (wrong := loads(name, never))}
    assert not found


@pytest.mark.parametrize("name", ["sia.losses", "sia.recall", "sia.schedules"])
def test_losses_recall_and_schedules_stand_alone(name):
    assert not ours(imports(name)) - {"sia.errors", "sia.section"}


@pytest.mark.parametrize("name", ["sia.losses", "sia.recall", "sia.schedules", "sia.data.sampler"])
def test_pure_modules_touch_no_file(name):
    assert not FILE_ACCESS & imports(name)
    calls = [node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if ast.unparse(call.func) in ("open", "print")]


@pytest.mark.parametrize("name", inside("sia.losses", "sia.recall", "sia.data", "sia.models"))
def test_only_training_and_evaluation_know_of_ranks(name):
    assert "torch.distributed" not in imports(name)
    assert "torch.nn.parallel" not in imports(name)


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
    tree = ast.parse(path.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {module for module in modules if module.startswith(("jobs", "tests"))}
    assert len(path.read_text().splitlines()) < 100


@pytest.mark.parametrize("name", MODULES)
def test_no_file_is_too_long_to_read(name):
    assert len(MODULES[name].read_text().splitlines()) <= 300


def loaded_after(code: str) -> set[str]:
    code = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", NO_TORCH)
def test_what_a_login_node_needs_loads_no_torch(name):
    assert name in MODULES
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        # Loading a.b.c loads a and a.b, too.
        packages = {module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)}
        needed = imports(module, at_load=True)
        assert not {one.partition(".")[0] for one in needed} & {
            "torch",
            "torchaudio",
            "torchvision",
            "ray",
            "mlflow",
        }, module
        waiting += (ours(needed) | packages) & MODULES.keys() - seen


def test_submitting_and_asking_for_status_load_neither_torch_nor_ray():
    modules = "sia.sweep.drive, sia.sweep.plan_table, sia.sweep.grid, sia.operate.watch, sia.run.state"
    loaded = loaded_after(f"import {modules}, sia.cluster.submit, sia.sweep.corpora")
    assert not {"torch", "ray", "mlflow", "submitit", "matplotlib"} & loaded
    assert "pydantic" in loaded, "the list is read off rightly"


def test_the_status_command_loads_no_torch(tmp_path):
    code = f"""
import runpy, sys
sys.path.insert(0, {str(REPOSITORY / "jobs")!r})
sys.argv = ["status.py"]
try:
    runpy.run_path({str(REPOSITORY / "jobs" / "status.py")!r}, run_name="__main__")
except SystemExit:
    pass
"""
    assert not {"torch", "ray", "mlflow", "matplotlib"} & loaded_after(code)


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
