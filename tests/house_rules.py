"""Python source -> the ways it breaks the rules of the house, one sentence each.

Every rule is a function of a `SourceFile`, so that `test_architecture.py` can run it on the project
and on a text that breaks it. Reads the syntax tree; imports nothing of the package.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# A file imports from its own tower (its folder; on the floors of single files, the floor) or from
# lower floors, never upward, never sideways.
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "config",
        "values",
        "backends",
        "plan_table",
        "contact_sheet",
        "cores",
        "files",
        "lock",
        "sqlite_file",
        "tables",
        "verdicts",
        "waits",
    ),
    ("video", "planning", "ops", "world", "remote"),
    ("model",),
    ("engine",),
    (
        "api",
        "asking",
        "connecting",
        "exchange",
        "fitting",
        "footage",
        "inputs",
        "judging",
        "live",
        "loading",
        "options",
        "preview",
        "running",
        "scanning",
        "seen",
        "session",
        "timeline",
    ),
    ("demo", "archive", "monitor", "serve", "train", "eval"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FLOORS_OF_FILES = (0, 4)

# These must load in milliseconds, and in processes that never touch a model.
TORCH_FREE = (*FLOORS[0], "video", "planning", "world")
TORCH_FREE_FILES = ("model_config", "tokenizer", "sentence_pieces", "prompt", "labels", "hub")
HEAVY = ("torch", "transformers")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceFile:
    """One file of the package, by its dotted name and text.

    Attributes:
        module: "llava_video.video.probe"; a package by its own name.
        text: the source.
        is_package: whether it is an `__init__.py`.
    """

    module: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def parts(self) -> list[str]:
        """The dotted name without the package's: ["video", "probe"]; [] for the root."""
        return self.module.split(".")[1:]


def read_package(folder: Path) -> dict[str, SourceFile]:
    """Read every Python file of a package, keyed by dotted name."""
    files = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        files[module] = SourceFile(module, path.read_text(encoding="utf-8"), is_package)
    return files


def imported_modules(file: SourceFile, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, module of the package) for every import, lazy ones included.

    A string that is a module's dotted name counts: that is how a lazy import by name looks.

    Args:
        file: the importing file.
        modules: dotted names of all modules of the package.
    """
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in modules else node.module
        elif isinstance(node, ast.Constant) and node.value in modules - {"llava_video"}:
            yield node.lineno, str(node.value)


def floor_faults(file: SourceFile, modules: set[str]) -> Iterator[str]:
    """Yield imports that go up or sideways."""
    if not file.parts:
        return  # the root names what it re-exports, all floors
    own = file.parts[0]
    if own not in FLOOR_OF:
        yield f"{file.module}: {own} stands on no floor; add it to FLOORS in tests/house_rules.py"
        return
    for line, module in imported_modules(file, modules):
        parts = module.split(".")
        if parts[0] != "llava_video" or len(parts) == 1 or parts[1] == own:
            continue
        theirs = FLOOR_OF.get(parts[1], len(FLOORS))
        same_floor = theirs == FLOOR_OF[own] and theirs in FLOORS_OF_FILES
        if theirs >= FLOOR_OF[own] and not same_floor:
            way = "sideways" if theirs == FLOOR_OF[own] else "up"
            yield f"{file.module}:{line} imports {way}: {module}"


def import_form_faults(file: SourceFile, files: dict[str, SourceFile]) -> Iterator[str]:
    """Yield relative imports, and names not imported from the module that defines them."""
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            yield f"{file.module}:{node.lineno} imports relatively"
        elif node.module in files and not file.is_package:
            known = defined_names(files[node.module]) | submodules_of(node.module, files)
            yield from (
                f"{file.module}:{node.lineno} {alias.name} is not defined in {node.module}"
                for alias in node.names
                if alias.name not in known
            )


def submodules_of(package: str, files: dict[str, SourceFile]) -> set[str]:
    return {name.rpartition(".")[2] for name in files if name.rpartition(".")[0] == package}


def defined_names(file: SourceFile) -> set[str]:
    """Return the top-level names of a file, without those it imports from the package itself."""
    names: set[str] = set()
    for node in _outside_functions(file.tree):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or node.names[0].name
            if module.split(".")[0] != "llava_video":
                names.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
    return names


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, Function | ast.ClassDef):
            yield from _outside_functions(child)


def torch_faults(file: SourceFile, modules: set[str]) -> Iterator[str]:
    """Yield imports of torch or transformers where none may be."""
    in_model = file.parts[:1] == ["model"] and file.parts[-1] in TORCH_FREE_FILES
    if not in_model and file.parts[:1] and file.parts[0] not in TORCH_FREE:
        return
    for line, module in imported_modules(file, modules):
        if module.split(".")[0] in HEAVY:
            yield f"{file.module}:{line} imports {module}; this file must do without"


def length_faults(file: SourceFile, max_lines: int = MAX_FILE_LINES) -> Iterator[str]:
    """Yield what is too long: the file, or a function without its signature and docstring."""
    num_lines = len(file.text.splitlines())
    if num_lines > max_lines:
        yield f"{file.module} has {num_lines} lines, at most {max_lines}: split it by noun"
    for node in ast.walk(file.tree):
        if isinstance(node, Function) and not _is_kernel(node):
            num_lines = body_lines(node)
            if num_lines > MAX_FUNCTION_LINES:
                yield (
                    f"{file.module}:{node.lineno} {node.name} has {num_lines} lines, "
                    f"at most {MAX_FUNCTION_LINES}"
                )


def body_lines(node: Function) -> int:
    """Count the lines of a function, signature and docstring not counted."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return 0
    first = body[0]
    decorators = getattr(first, "decorator_list", [])
    start: int = min([first.lineno, *(decorator.lineno for decorator in decorators)])
    return (node.end_lineno or start) - start + 1


def _is_kernel(node: Function) -> bool:
    """Say whether a function is a Triton kernel, `@triton.jit` or `@triton.autotune` over it."""
    return any("jit" in ast.unparse(d).split("(")[0].split(".") for d in node.decorator_list)


def docstring_faults(file: SourceFile) -> Iterator[str]:
    """Yield a module, or a public function, class or method, without a docstring."""
    if ast.get_docstring(file.tree) is None and not (file.is_package and not file.tree.body):
        yield f"{file.module} has no docstring"
    yield from (
        f"{file.module}:{node.lineno} {name} has no docstring"
        for name, node in _public(file.tree, "")
        if ast.get_docstring(node) is None
    )


def _public(parent: ast.AST, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.If | ast.Try):
            yield from _public(node, prefix)
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any(ast.unparse(d) in ("overload", "typing.overload") for d in node.decorator_list):
            yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from _public(node, f"{prefix}{node.name}.")


def print_faults(file: SourceFile) -> Iterator[str]:
    """Yield calls of print outside the command line."""
    if file.parts[:1] == ["cli"]:
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{file.module}:{node.lineno} prints; only cli/ does"


def init_faults(file: SourceFile) -> Iterator[str]:
    """Yield an `__init__.py` that does more than re-export; the root may re-export lazily."""
    if not file.is_package or not file.parts:
        return
    for node in file.tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not (is_docstring or is_all or isinstance(node, ast.Import | ast.ImportFrom)):
            yield f"{file.module}:{node.lineno} an __init__.py only re-exports"


def mirror_path(file: SourceFile) -> str | None:
    """Return where a file's tests stand under tests/; None for what needs none."""
    if file.is_package or file.parts[-1] == "__main__":
        return None
    return "/".join([*file.parts[:-1], f"test_{file.parts[-1]}.py"])
