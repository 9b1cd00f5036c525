# Copyright: armfleet.vfio contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Sphinx builds the site; tools/docs.py lays out what it reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# For names.py.
sys.path.append(str(Path(__file__).parent))

project = "armfleet.vfio"
author = "armfleet.vfio contributors"
project_copyright = author
html_title = project

extensions = ["myst_parser", "sphinx.ext.intersphinx", "sphinx_antsibull_ext", "names"]
# Headings get the anchors that GitHub gives them.
myst_heading_anchors = 4
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
# What is for the repository alone, and a page of variables, of which there are none.
exclude_patterns = [
    ".github",
    "docs/site",
    "collections/environment_variables.rst",
    # Parts of it are on the first page, index.md.
    "README.md",
]

# Nothing is fetched: the labels are listed beside this file.
intersphinx_mapping = {
    "ansible": ("https://docs.ansible.com/projects/ansible/latest/", os.environ["SITE_LABELS"])
}

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_repository": os.environ["SITE_REPOSITORY"],
    "source_branch": "main",
}
pygments_style = "ansible"
pygments_dark_style = "monokai"
highlight_language = "YAML+Jinja"

nitpicky = True
