"""Nothing in the project runs code from data: no pickle, no eval, no loaders that hide one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "actors", "jobs", "deploy")
BANNED_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
}
BANNED_NAMES = {"eval", "exec", "compile", "__import__"}
BANNED_CALLS = {
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "numpy.load",
    "np.load",
    "pandas.read_pickle",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "os.system",
}
BANNED_ARGUMENTS = {"trust_remote_code", "allow_pickle"}


def violations(source: str) -> Iterator[str]:
    """What a module does that none may, as `line: what`."""
    for node in ast.walk(ast.parse(source)):
        for what in _banned(node):
            yield f"{getattr(node, 'lineno', 0)}: {what}"


def _banned(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names if _root(name.name) in BANNED_MODULES)
        yield from (f"{name.name} under another name" for name in node.names if _hides(name))
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if _root(module) in BANNED_MODULES:
            yield module
        calls = (f"{module}.{name.name}" for name in node.names)
        yield from (call for call in calls if call in BANNED_CALLS)
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in BANNED_NAMES | BANNED_CALLS:
            yield name
        if name.startswith("subprocess.") and _shell(node):
            yield f"{name} through a shell"
    elif isinstance(node, ast.keyword) and node.arg in BANNED_ARGUMENTS:
        yield node.arg


def _root(module: str) -> str:
    return module.partition(".")[0]


def _hides(name: ast.alias) -> bool:
    """`import torch as t` would slip `t.load` past this scan; numpy's usual name is known to it."""
    return name.name in {"torch", "yaml", "os"} and name.asname is not None


def _shell(call: ast.Call) -> bool:
    return any(
        keyword.arg == "shell" and getattr(keyword.value, "value", True)
        for keyword in call.keywords
    )


def modules() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_runs_code_from_data(file):
    assert list(violations(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import cloudpickle as c",
        "from pickle import loads",
        "from torch import load",
        "import torch as t",
        "torch.load('x')",
        "np.load(f, allow_pickle=True)",
        "yaml.load(text)",
        "eval('1')",
        "exec(code)",
        "__import__('os')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_the_scan_sees_what_it_bans(source):
    assert list(violations(source))


@pytest.mark.parametrize(
    "source", ["re.compile('x')", "json.load(f)", "model.eval()", "subprocess.run(['ls'])"]
)
def test_the_scan_lets_harmless_namesakes_be(source):
    assert list(violations(source)) == []
