"""make docs fails on errors that are visible in pages of the built site."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import furo
import pytest

ROOT = Path(__file__).parents[3]
STYLE = Path(furo.__file__).parent / "theme/furo/static/styles/furo.css"
ALLOWED = "this-will-duplicate-information-and-it-is-still-useful-here"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_errors", ROOT / "tools/site_errors.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "element",
    [
        # The output of docutils for directives of antsibull-docs.
        '<nav class="contents local">',
        '<div class="contents topic">',
        '<aside class="system-message">',
        '<span class="problematic">',
        '<div class="admonition error">',
    ],
)
def test_an_error_is_named_with_page_and_line(
    tmp_path: Path, tool: ModuleType, element: str
) -> None:
    (tmp_path / "collections").mkdir()
    (tmp_path / "collections/a.html").write_text(f"<noscript></noscript>\n<p>\n{element}x")
    assert tool.site_errors(tmp_path) == [f"collections/a.html:3: {element}"]


@pytest.mark.parametrize(
    "element",
    [
        f'<nav class="contents local {ALLOWED}">',
        '<div class="admonition note">',
        '<p class="error">',
        '<p id="contents">&lt;nav class="contents"&gt;',
        '<noscript><div class="admonition error"></div></noscript>',
        "<!-- <nav class='contents'> -->",
    ],
)
def test_what_is_no_error_is_left_alone(tmp_path: Path, tool: ModuleType, element: str) -> None:
    (tmp_path / "a.html").write_text(element)
    assert tool.site_errors(tmp_path) == []


def test_the_errors_of_the_theme_are_known(tmp_path: Path, tool: ModuleType) -> None:
    (tmp_path / "furo.css").write_text(STYLE.read_text())
    assert tool.site_errors(tmp_path) == []
    assert tool._theme_errors(STYLE) == [f".contents:not(.{ALLOWED}):before"]


def test_a_new_error_of_the_theme_is_noticed(tmp_path: Path, tool: ModuleType) -> None:
    (tmp_path / "a.css").write_text('p{color:red}.deep-toc:before{content:"ERROR: no"}')
    (error,) = tool.site_errors(tmp_path)
    assert error.startswith("a.css: the theme shows an error for .deep-toc:before, ")
