"""Which of the project's own files a script runs: they decide whether an old checkpoint may be resumed."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pipeline"
WITHOUT_EFFECT = (f"{PACKAGE}/runtime/", f"{PACKAGE}/commands/")  # cannot change a result


def imported_files(script: Path) -> set[Path]:
    """Files below pipeline/ that `script` imports, directly or not, at its top or inside functions.

    Read from the source, nothing is run. Modules imported by a computed name are not seen.
    """
    seen: set[Path] = set()
    waiting = [script]
    while waiting:
        for path in _imports(waiting.pop()):
            if path not in seen:
                seen.add(path)
                waiting.append(path)
    return seen


def loaded_files() -> set[Path]:
    """Files below pipeline/ of the modules that this process has imported so far."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE]
    return {Path(module.__file__) for module in modules if getattr(module, "__file__", None)}


def result_changing(paths: Iterable[Path]) -> list[str]:
    """Sorted paths relative to the project, without empty files and those that cannot change a result."""
    names = {path.resolve().relative_to(ROOT).as_posix() for path in paths if path.stat().st_size}
    return sorted(name for name in names if not name.startswith(WITHOUT_EFFECT))


def _imports(script: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = set()
    for name in names:
        if name.partition(".")[0] == PACKAGE:
            base = ROOT / name.replace(".", "/")
            found |= {path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}
    return found
