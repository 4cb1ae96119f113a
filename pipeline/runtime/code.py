"""Which of the project's own files a script runs: they decide whether an old checkpoint may be resumed."""

import ast
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pipeline"
WITHOUT_EFFECT = (f"{PACKAGE}/runtime/", f"{PACKAGE}/commands/")  # cannot change a result


def imported_files(*scripts: Path) -> set[Path]:
    """Files below pipeline/ that `scripts` import, directly or not, at their top or inside functions.

    Read from the source, nothing is run; modules imported by a computed name are not seen. What only the
    runtime and the commands import is not followed: it reaches a stage as parameters.
    """
    seen: set[Path] = set()
    waiting = list(scripts)
    while waiting:
        for path in _imports(waiting.pop()):
            if path not in seen:
                seen.add(path)
                if not path.relative_to(ROOT).as_posix().startswith(WITHOUT_EFFECT):
                    waiting.append(path)
    return seen


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
