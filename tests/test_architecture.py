"""The import rules, held by reading what every file imports, and by asking a fresh interpreter what serving loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "features": {"features"},
    "serving": {"serving", "features"},
    "training": {"training", "serving", "features"},
}
OURS = {*MAY_IMPORT, "tests"}
HEAVY = {"torch", "implicit", "optuna", "mlflow", "pandas", "pyspark"}
UNSAFE = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
NAMELESS = {"utils", "helpers", "common", "manager", "util", "helper", "misc"}
FILES = {
    path.relative_to(ROOT).as_posix(): path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))
}
READ_BY_SERVERS = [name for name in FILES if not name.startswith("training/")]
every_file = pytest.mark.parametrize("name", FILES)


def imported(source: str) -> set[str]:
    """Top-level names of what a file imports, wherever in it; a relative import counts as ``"."``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).split(".")[0])
    return found


def unpickling_calls(source: str) -> list[str]:
    """Calls that would unpickle: ``torch.load`` and anything with ``allow_pickle=True``."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    loads = [ast.unparse(call.func) for call in calls if ast.unparse(call.func) == "torch.load"]
    return loads + [
        ast.unparse(call.func)
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
    ]


@every_file
def test_a_package_imports_only_what_it_may(name: str) -> None:
    allowed = MAY_IMPORT[name.split("/")[0]]
    assert imported(FILES[name].read_text()) & {*OURS, "."} <= allowed


@every_file
def test_a_module_is_named_for_what_it_holds(name: str) -> None:
    assert not NAMELESS & {part.removesuffix(".py").lower() for part in name.split("/")}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("__init__.py")])
def test_init_files_are_empty(name: str) -> None:
    assert FILES[name].read_text() == ""


@pytest.mark.parametrize("name", READ_BY_SERVERS)
def test_nothing_that_servers_read_is_unpickled(name: str) -> None:
    source = FILES[name].read_text()
    assert not imported(source) & UNSAFE
    assert not unpickling_calls(source)


@every_file
def test_only_its_engine_imports_spark(name: str) -> None:
    assert "pyspark" not in imported(FILES[name].read_text()) or name == "features/spark.py"


def test_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_serving_loads_nothing_heavy() -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in FILES if name.startswith("serving/")]
    imports = "\n".join(f"import {module}" for module in modules if not module.endswith("__init__"))
    program = f"import sys\n{imports}\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_rules_can_fail() -> None:
    assert imported("from training.cli import main\nimport a.b\nfrom . import c") == {"training", "a", "."}
    assert unpickling_calls("torch.load(f); np.load(f, allow_pickle=True); np.load(f, allow_pickle=False)") == [
        "torch.load",
        "np.load",
    ]
