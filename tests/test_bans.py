"""What the product must not contain, looked for in the syntax tree: whatever turns bytes or text into code."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = (
    "steersman",
    "schemas",
    "streams",
    "learners",
    "columns",
    "serving",
    "sinks",
    "doors",
    "page",
    "console",
    "manual",
    "examples",
    "benchmarks",
    "deploy",
)
MODULES = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"})
CALLS = frozenset({"eval", "exec", "compile", "__import__"})
UNSAFE_YAML = frozenset({"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"})
PICKLING = frozenset({"read_pickle", "to_pickle"})
"""Methods, whatever they are called on."""


def banned(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that must not be there."""
    known = dict(_imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            yield from _call(node, known)
            continue
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in MODULES)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What names of a module stand for: in ``from yaml import load as read``, read for yaml.load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _call(node: ast.Call, known: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    first, dot, rest = ast.unparse(node.func).partition(".")
    name = known.get(first, first) + dot + rest
    told = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in CALLS or name.removeprefix("builtins.") in CALLS:
        yield node.lineno, name
    if name.startswith("yaml.") and name.removeprefix("yaml.") in UNSAFE_YAML:
        yield node.lineno, name
    if name == "torch.load" and not _is(told.get("weights_only"), True):
        yield node.lineno, "torch.load without weights_only=True"
    if name.rpartition(".")[2] in PICKLING:
        yield node.lineno, name
    if name.endswith("import_module") and any(isinstance(a, ast.Constant) and a.value in MODULES for a in node.args):
        yield node.lineno, f"{name} of {ast.unparse(node.args[0])}"
    if "allow_pickle" in told and not _is(told["allow_pickle"], False):
        yield node.lineno, f"{name} with allow_pickle"
    if name.startswith("subprocess.") and _is(told.get("shell"), True):
        yield node.lineno, f"{name} with a shell"
    if name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
        yield node.lineno, name
    if "serializer" in " ".join(filter(None, told)):
        for key, value in told.items():
            if key and key.endswith("serializer") and isinstance(value, ast.Constant) and "pickle" in str(value.value):
                yield node.lineno, f"{key}={value.value!r}"


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_in_the_product_turns_bytes_into_code() -> None:
    files = [
        file
        for folder in PRODUCT
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not any(part.startswith(".venv") for part in file.parts)
    ]
    assert len(files) > 200
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in files
        for line, name in banned(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import cloudpickle as c", "import joblib.memory", "import marshal", "eval('1')",
        "exec(x)", "compile(a, b, 'exec')", "__import__(name)", "yaml.load(f)", "yaml.unsafe_load(f)", "torch.load(f)",
        "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "subprocess.run(c, shell=True)", "os.system(c)",
        "app(value_serializer='pickle')", "builtins.eval(x)", "from yaml import load as read\nread(f)", "import torch as t\nt.load(f)",
        "from torch import load\nload(f)", "from os import system\nsystem(c)", "from subprocess import run as r\nr(c, shell=True)",
        "frame.to_pickle(f)", "importlib.import_module('pickle')", "from importlib import import_module\nimport_module('dill')",
        "from builtins import exec as e\ne(x)", "numpy.lib.format.read_array(f, allow_pickle=True)",
    ],
)  # fmt: skip
def test_the_check_sees(code: str) -> None:
    assert list(banned(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "yaml.safe_load(f)",
        "torch.load(f, weights_only=True)",
        "re.compile(x)",
        "np.load(f)",
        "x.eval()",
        "json.load(f)",
        "from json import load\nload(f)",
        "import torch as t\nt.load(f, weights_only=True)",
        "importlib.import_module('json')",
        "np.load(f, allow_pickle=False)",
    ],
)
def test_the_check_leaves_alone(code: str) -> None:
    assert not list(banned(ast.parse(code)))
