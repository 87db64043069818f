"""A name means one thing: no class and no module of the packages is called like another one."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "actors", "jobs", "deploy")
TOLD_BY_THEIR_FOLDER = {
    "__init__",
    "cli",  # each folder of commands has one
    "config",  # a family's, beside vidray's own: every family has files of the same names
    "local",  # in process, and a store on a disk
    "options",  # of what is asked, and of a plan
}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path.relative_to(ROOT) for path in sorted((ROOT / package).rglob("*.py")))


def classes_of(path: Path) -> Iterator[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def homonyms(named: Iterator[tuple[str, Path]]) -> dict[str, list[str]]:
    """Where each name stands that stands more than once."""
    places = defaultdict(list)
    for name, path in named:
        places[name].append(str(path))
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_two_classes_have_one_name():
    assert homonyms((name, path) for path in modules() for name in classes_of(path)) == {}


def test_no_two_modules_have_one_name_unless_their_folders_tell_them_apart():
    found = homonyms((path.stem, path) for path in modules())
    assert found.keys() <= TOLD_BY_THEIR_FOLDER, found
    assert found.keys() >= TOLD_BY_THEIR_FOLDER, "an exception that is none any more"
