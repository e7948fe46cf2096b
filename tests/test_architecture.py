"""The tree is the drawing: api -> serving <- training, and nothing else."""

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import fields
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from api.settings import Settings
from api.telemetry.metrics import Metrics
from tests.support.commands import blocks, python
from training.config import Recipe

ROOT = Path(__file__).parent.parent
ABOVE: dict[str, set[str]] = {
    "serving": {"training", "api", "digitgan"},
    "training": {"api", "digitgan"},
    "api": {"training", "digitgan"},
    "digitgan": set(),
}
FILES = [path for package in ABOVE for path in (ROOT / package).rglob("*.py")]
DRAWN = "".join(blocks((ROOT / "docs" / "architecture.md").read_text("utf-8"), "text")).splitlines()
ROOMS = {line.split()[0]: line.split()[1:] for line in DRAWN}
"""The folders of each package as the page draws them: each may import those before it."""
FORBIDDEN = ABOVE | {
    f"{package}/{room}": {f"{package}.{later}" for later in rooms[place + 1 :]}
    for package, rooms in ROOMS.items()
    for place, room in enumerate(rooms)
}


def imported(path: Path) -> set[str]:
    """What a file names in its import statements, wherever they stand, with the packages that hold it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {".".join(parts[:end]) for parts in (name.split(".") for name in names) for end in range(1, len(parts) + 1)}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_folder_imports_only_those_before_it(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[folder], path


def test_the_page_draws_each_folder() -> None:
    for package, rooms in ROOMS.items():
        folders = {path.parent.relative_to(ROOT / package).parts[0] for path in (ROOT / package).glob("*/__init__.py")}
        assert set(rooms) == folders - {"pretrained"}


def test_no_import_leads_back_to_where_it_began() -> None:
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    imports = {
        module: {
            name if (name := f"{node.module}.{alias.name}") in paths else node.module or ""
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for module, path in paths.items()
    }
    TopologicalSorter(imports).prepare()  # It raises CycleError, which names the modules.


def test_the_contract_imports_the_standard_library_only() -> None:
    names = {name.partition(".")[0] for name in imported(ROOT / "serving" / "contract.py")}
    assert names <= sys.stdlib_module_names


def test_only_the_model_server_and_the_training_name_tensorflow() -> None:
    at_home = [ROOT / "serving" / "model_server", ROOT / "training"]
    for path in FILES:
        if not any(path.is_relative_to(home) for home in at_home):
            assert not imported(path) & {"tensorflow", "tensorflow_serving", "keras"}, path


@pytest.mark.parametrize(
    ("code", "there", "absent"),
    [
        (
            "from api import main; import digitgan.cli; main.create_app(main.load_settings())",
            {"api", "fastapi", "grpc"},
            {"httpx", "keras", "matplotlib", "openvino", "opentelemetry.sdk", "packaging", "sklearn", "tensorflow"},
        ),
        ("from digitgan import Client", {"httpx", "numpy"}, {"api", "fastapi", "training", "tensorflow", "grpc"}),
        ("import digitgan.cli", {"typer"}, {"digitgan.commands.serving", "httpx", "PIL", "tensorflow", "training"}),
        ("import serving.model_server.server", {"openvino"}, {"openvino_telemetry", "tensorflow"}),
    ],
)
def test_an_import_brings_no_more_than_it_needs(code: str, there: set[str], absent: set[str]) -> None:
    loaded = set(python(f"{code}\nimport sys; print(*sys.modules)").stdout.split())
    assert there <= loaded
    assert not loaded & absent


@pytest.mark.parametrize(
    ("package", "names", "use"),
    [
        ("api", Settings.model_fields, r"\.{}\b"),
        ("api", [name for name, one in vars(Metrics()).items() if isinstance(one, MetricWrapperBase)], r"{}\.[a-z]+\("),
        ("training", [field.name for field in fields(Recipe)], r"\brecipe\.{}\b"),
    ],
    ids=["settings", "metrics", "recipe"],
)
def test_what_is_declared_is_used(package: str, names: Iterable[str], use: str) -> None:
    """A setting that nothing reads has no effect, and a metric that nothing changes stays 0."""
    code = "".join(path.read_text("utf-8") for path in (ROOT / package).rglob("*.py"))
    assert [name for name in names if not re.search(use.format(name), code)] == []
