"""Texts for users have the terms of docs/style.md, and no words that it advises against."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]

# Patterns and their replacements: the words that docs/style.md advises against, and the metaphors
# that modules were once named after.
WORDS = {
    r"folders?": "directory",
    r"mend(s|ed|ing)?": "fix",
    r"anew|again and again": "again, reload",
    r"by hand": "manually",
    r"(leav(e|es|ing)|left) (it |them |that )?(away|out)": "omit",
    r"(giv(e|es|en|ing)|gave|puts?|putting|brings?|bringing|brought) (\w+ ){0,3}back": (
        "release (a device), roll back (a run), restore (a list)"
    ),
    r"(is|are|be|was|were) (said|told)|such a one": "report, message, details",
    r"says?|saying|tells?": "set, report, state",
    r"words?": "kernel parameter, name, argument",
    r"look(s|ed|ing)? at": "inspect, read, check",
    r"boot(s|ed|ing)? (it|them|(the|its) (hosts?|machine|board))": "reboot",
    r"(across|over) boots|lasts|lasting": "persist across reboots",
    r"as listed|as (its|the) list (wants|says)|as (it|they) should be": "in sync",
    r"(list|policy) (wants|asks)": "require",
    r"carr(y|ies|ied)": "in use by",
    r"somebody else'?s?|(rules|files) of others|other people'?s": "foreign, another user",
    r"list last applied|list that was applied last|the memory": "last-applied configuration",
    r"mixed up|in (the|\w+'s) way": "conflict",
    r"untouched|left alone|all the same": "unchanged",
    r"(is|are|be|was|were|on) (with|on) VFIO|on its own driver": "bound to",
    r"(takes?|taken|took) (\w+ ){1,3}(off|from (its|their) drivers?)": "remove, unbind",
    r"of no use|nowhere|elsewhere|choosy": "the cause, the place",
    r"doors?|floor|outlook|rivals?": "the thing itself",
}
_DIALECT = re.compile(r"\b(?:%s)\b" % "|".join(WORDS), re.IGNORECASE)
_MARKDOWN = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("roles/*/README.md"),
    ROOT / "extensions/simulator/README.md",
]
_YAML = [
    *ROOT.glob("playbooks/**/*.yml"),
    *ROOT.glob("roles/*/*/*.yml"),
    *ROOT.glob("extensions/molecule/**/*.yml"),
    *ROOT.glob("changelogs/fragments/*.yml"),
    *ROOT.glob("docs/examples/**/*.yml"),
]
_PAGE = [
    *ROOT.glob("roles/*/templates/*"),
    ROOT / "roles/report/files/report.js",
    ROOT / "Makefile",
]
_PYTHON = [
    *ROOT.glob("plugins/**/*.py"),
    *ROOT.glob("roles/*/files/*.py"),
    *ROOT.glob("extensions/simulator/*.py"),
]
# Names that fit any value, and so do not describe one.
EMPTY_NAMES = {"one", "found", "place"}
# Parts of names that say by a picture what the field has a word for.
METAPHORS = {
    *("anew", "beside", "door", "elsewhere", "folder", "hand", "lasting", "outlook", "rival"),
    *("say", "tell", "told", "why"),
}
# Of a function, with its docstring.
MOST_LINES = 60
MOST_POSITIONAL = 5
# The page that lists the words.
_LEFT_OUT = {"docs/style.md", "CHANGELOG.md"}


class Line(NamedTuple):
    """A line of a text for users, and its file."""

    path: str
    text: str


# Parts of lines that may have a word of WORDS, by file, with the reason.
LEGITIMATE = {
    Line("changelogs/fragments/names-of-the-field.yml", "``carries`` is now ``in_use_by``"): "old",
    Line("changelogs/fragments/names-of-the-field.yml", "``boot_configuration[].says``"): "old",
    Line("changelogs/fragments/names-of-the-field.yml", "``kernel_command_line.words``"): "old",
    Line("changelogs/fragments/names-of-the-field.yml", "``says`` of a boot file"): "old",
    Line("changelogs/fragments/names-of-the-field.yml", "``WORDS`` is now"): "old",
    Line("changelogs/fragments/simulator_in_use.yml", "C(--carries)"): "an option",
    Line("docs/report.md", "The filter takes words."): "a search box takes words",
    Line("docs/security-model.md", "udev splits a command into words"): "udev's own term",
    Line("docs/user-space.md", "prints words of 32 bits"): "machine words",
    Line("docs/examples/boards/altra.yml", "carries:"): "a key of descriptions",
    Line("docs/examples/boards/server.yml", "carries:"): "a key of descriptions",
    Line("docs/examples/boards/zcu102.yml", "carries:"): "a key of descriptions",
    Line("docs/user-space.md", "Choose words of 4 bytes"): "machine words",
    Line("extensions/molecule/create.yml", "--carries"): "an option of the command line",
    Line("extensions/simulator/README.md", "carries:"): "a key of its description files",
    Line("extensions/simulator/README.md", "`carries`"): "a key of its description files",
    Line("extensions/simulator/README.md", "--carries"): "an option of the command line",
    Line("extensions/simulator/__main__.py", "--carries"): "an option of the command line",
    Line("extensions/simulator/description_file.py", "carries:"): "a key of its description files",
    Line("plugins/module_utils/_report/device_info.py", "Do not boot it"): "a kernel is booted",
    Line("plugins/modules/device_info.py", "Do not boot it"): "a kernel is booted",
}


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file; from Python, only those of strings that are no docstrings."""
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    texts = _literals(text) if path.suffix == ".py" else [text]
    for line in "\n".join(texts).splitlines():
        yield Line(name, line.strip())


def _literals(source: str) -> list[str]:
    tree = ast.parse(source)
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, scopes) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and " " in node.value
        and id(node) not in docstrings
    ]


def find_dialect(path: Path) -> list[str]:
    """Return a message for each word of WORDS in a file, with its replacement."""
    problems = []
    for line in read_lines(path):
        for match in _DIALECT.finditer(line.text):
            if not any(line.path == known.path and known.text in line.text for known in LEGITIMATE):
                advice = next(
                    better
                    for word, better in WORDS.items()
                    if re.fullmatch(word, match.group(), re.IGNORECASE)
                )
                problems.append(f"{line.path}: {match.group()!r} ({advice}) in {line.text!r}")
    return problems


FILES = sorted(
    path
    for path in {*_MARKDOWN, *_YAML, *_PAGE, *_PYTHON}
    if str(path.relative_to(ROOT)) not in _LEFT_OUT
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_users_read_has_no_word_of_a_private_dialect(path: Path) -> None:
    assert find_dialect(path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("docs/page.md", "# A page\n\nMend it in that folder, by hand.\n"),
        ("playbooks/play.yml", "- name: Look at the devices\n"),
        ("plugins/message.py", 'def f(x):\n    return "%s is left as it was; put it back" % x\n'),
        ("plugins/message.py", 'OPTIONS = """\n  description: What it carries.\n"""\n'),
        ("roles/report/files/page.js", 'const title = "As listed";\n'),
    ],
)
def test_a_planted_word_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert find_dialect(path) != []


def test_docstrings_and_single_names_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "module.py"
    path.write_text('"""What it carries."""\nKEY = "folder"\n')
    assert find_dialect(path) == []


@pytest.mark.parametrize("known", LEGITIMATE, ids=lambda known: f"{known.path}: {known.text}")
def test_each_legitimate_use_is_still_there(known: Line) -> None:
    lines = [line.text for line in read_lines(ROOT / known.path) if known.text in line.text]
    assert any(map(_DIALECT.search, lines))


def python_files() -> Iterator[Path]:
    """Yield every Python file, also programs without a suffix, of a checkout or a copy of it."""
    for path in ROOT.rglob("*"):
        top = path.relative_to(ROOT).parts[0]
        if not top.startswith(".") and top != "build" and path.is_file() and _is_python(path):
            yield path


def _is_python(path: Path) -> bool:
    with path.open("rb") as stream:
        return path.suffix == ".py" or re.match(rb"#!.*python", stream.readline()) is not None


def find_empty_names(source: str) -> set[str]:
    """Return the names of EMPTY_NAMES that a source defines."""
    return {name for node in ast.walk(ast.parse(source)) for name in _defined(node) & EMPTY_NAMES}


def _defined(node: ast.AST) -> set[str]:
    is_read = isinstance(getattr(node, "ctx", None), ast.Load)
    if is_read or isinstance(node, ast.keyword):
        return set()
    # Fields with names of variables, parameters, attributes, functions and classes, and imports.
    fields = ("id", "arg", "attr", "name", "asname")
    return {name for name in (getattr(node, field, None) for field in fields) if name}


def test_each_name_says_what_it_holds() -> None:
    named = {
        str(path.relative_to(ROOT)): find_empty_names(path.read_text()) for path in python_files()
    }
    assert len(named) > 300
    assert {path: names for path, names in named.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "[one for one in range(3)]",
        "def find(*, place): ...",
        "lambda one: None",
        "def found(): ...",
        "self.place = 1",
        "class Device:\n    place: str",
        "import os as place",
    ],
)
def test_a_planted_name_is_found(source: str) -> None:
    assert find_empty_names(source) != set()


def find_keys_by_fields(source: str) -> set[str]:
    """Return what a source calls to make keys of the names of fields."""
    names = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Attribute, ast.Name))
    }
    return names & {"_asdict", "asdict"}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("plugins/**/*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_renamed_field_changes_no_key_of_a_result_or_a_file(path: Path) -> None:
    assert find_keys_by_fields(path.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    ["result.update(**device._asdict())", "dataclasses.asdict(device)", "map(asdict, devices)"],
)
def test_planted_keys_by_fields_are_found(source: str) -> None:
    assert find_keys_by_fields(source) != set()


def test_a_name_that_is_only_read_is_that_of_others() -> None:
    assert find_empty_names("print(match.found, call(place=1), 'one')") == set()


def find_long_functions(source: str) -> dict[str, int]:
    """Return the lines of each function that has more than MOST_LINES.

    Ruff counts statements (PLR0915), of which a list of a hundred lines has one.
    """
    functions = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name: lines for name, lines in functions.items() if lines > MOST_LINES}


def test_a_function_can_be_read_on_one_screen() -> None:
    """Tests themselves may be longer: some are the story of a fleet."""
    long_functions = {
        str(path.relative_to(ROOT)): find_long_functions(path.read_text())
        for path in python_files()
        if path.relative_to(ROOT).parts[0] != "tests" or ROOT / "tests/harness" in path.parents
    }
    assert len(long_functions) > 200
    assert {path: names for path, names in long_functions.items() if names} == {}


@pytest.mark.parametrize("head", ["def f():", "class C:\n  async def f(self):"])
@pytest.mark.parametrize(("lines", "is_long"), [(59, False), (60, True)])
def test_a_planted_function_is_found(head: str, lines: int, is_long: bool) -> None:
    body = "    return [\n" + "        1,\n" * (lines - 2) + "    ]\n"
    assert bool(find_long_functions(f"{head}\n{body}")) is is_long


def find_long_positional(source: str) -> set[str]:
    """Return the classes that a source calls with more values by position than one can follow."""
    return {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and len(node.args) > MOST_POSITIONAL
        and ast.unparse(node.func).rpartition(".")[2].lstrip("_")[:1].isupper()
    }


@pytest.mark.parametrize("path", _PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_long_tuples_are_made_by_the_names_of_their_fields(path: Path) -> None:
    assert find_long_positional(path.read_text()) == set()


def test_a_planted_long_tuple_is_found() -> None:
    assert find_long_positional("module._Plan(1, 2, 3, 4, 5, 6)") == {"module._Plan"}
    assert find_long_positional("Plan(1, 2, 3, 4, 5, six=6)\ncall(1, 2, 3, 4, 5, 6)") == set()


def find_metaphors(source: str) -> set[str]:
    """Return the names in a source with a word of METAPHORS."""
    return {
        name
        for node in ast.walk(ast.parse(source))
        for name in _defined(node)
        if METAPHORS & set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
    }


@pytest.mark.parametrize("path", _PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_have_the_words_of_the_field(path: Path) -> None:
    # The key of results, which users read.
    assert find_metaphors(path.read_text()) - {"why_not"} == set()


@pytest.mark.parametrize(
    "source",
    ["def why_missing(): ...", "class FolderTree: ...", "is_by_hand = 1", "lambda told: 1"],
)
def test_a_planted_metaphor_is_found(source: str) -> None:
    assert find_metaphors(source) != set()
