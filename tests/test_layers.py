"""Who may import whom: design in one table, checked on every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import proassist_lit

PACKAGE = Path(proassist_lit.__file__).parent
NAME = "proassist_lit"

EDGE = {"lit", "cli", "going_on", "composition", "commands", "sweep"}  # they alone import these:
EDGE_ONLY = {"lightning", "pytorch_lightning", "hydra", "wandb", "omegaconf"}

LAYERS = (
    {
        "types",
        "errors",
        "atomic",
        "cache_folder",
        "directory_lock",
        "fingerprint",
        "frame_speed",
        "processors",
        "rendezvous",
    },
    {"vision"},  # encoders of frames: data.generate draws and encodes what it invents
    {"data"},
    {"encoding"},  # from videos to feature files
    {"sequence"},
    {"model"},
    {"losses", "optimizer_config"},
    {"loss_terms"},
    {"objectives"},
    {"micro_batches", "trainer_config"},
    {"streaming"},
    {"metrics", "judge"},
    {
        "evaluation",
        "run_directory",
        "run_notes",
        "job_result",
    },  # stream and score; keep what came out
    {"report"},
    {"live"},  # a trained assistant watches
    {"demo"},
)
"""Each imports from its own layer and from those before it."""

JOINS = {
    "config",  # joins the settings of every layer into one schema
    "build",  # builds the objects of every layer, in sight
    "exchange",  # writes and reads whole assistants: weights, settings and what they reached
}
"""Files whose work is to bring all layers together; no layer may import them."""

FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """Folder or file right below the package that ``path`` belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_join(name: str) -> bool:
    return name in JOINS or name.startswith("config_")


def imports(source: str) -> list[str]:
    """Modules that ``source`` imports anywhere, functions included, in dotted names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            # `from proassist_lit import build` imports a module, too
            found += [f"{module}.{a.name}" for a in node.names] if module == NAME else [module]
    return found


def layer(name: str) -> int:
    return next(i for i, parts in enumerate(LAYERS) if name in parts)


def faults(name: str, source: str) -> list[str]:
    """Imports inside the package that ``name``, a part of it, must not have."""
    out = []
    for module in imports(source):
        root, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        if root != NAME or not target or target.startswith("__"):
            continue
        if target in EDGE or is_join(target) or layer(target) > layer(name):
            out.append(module)
    return out


CORE = [path for path in FILES if part(path) not in EDGE]
LAYERED = [path for path in CORE if not is_join(part(path)) and part(path) != "__init__"]


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_does_not_import_the_edge(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imports(path.read_text(encoding="utf-8"))}

    found = roots & EDGE_ONLY
    assert not found, f"{relative(path)} imports {found}; move that part to the edge"


@pytest.mark.parametrize("path", LAYERED, ids=relative)
def test_imports_go_to_the_left_only(path: Path) -> None:
    found = faults(part(path), path.read_text(encoding="utf-8"))

    assert not found, f"{relative(path)} imports {found}, which stand to its right in the design"


def test_every_part_has_its_place() -> None:
    parts = {part(path) for path in FILES} - {"__init__"}
    placed = {name for names in LAYERS for name in names} | EDGE

    assert {name for name in parts if not is_join(name)} == placed


def test_the_checks_see_every_way_to_import() -> None:
    assert faults("data", "from proassist_lit.model.heads import X") == [
        "proassist_lit.model.heads"
    ]
    assert faults("data", "def f():\n    import proassist_lit.lit.module") == [
        "proassist_lit.lit.module"
    ]
    assert faults("metrics", "from proassist_lit import build") == ["proassist_lit.build"]
    assert faults("model", "from proassist_lit.data.dialogue import X") == []
    assert imports("import lightning as L\nfrom hydra.core import y") == ["lightning", "hydra.core"]
