"""Have the Python of a guest compile what Ansible sends to it once, not in each run of a module.

A module comes as an archive, and Python keeps no bytecode of what is in one. Emulated, that is a
second of each run. The benchmarks and the demo are without it, as users' hosts are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.guest import Guest

# Set to anything, it has Python compile again: for runs whose accesses to files are counted.
COMPILE_AGAIN = "ARMFLEET_TEST_COMPILE_AGAIN"

_DIRECTORY = "/run/armfleet-test-bytecode"
_PROGRAM = f"""\
import _imp, marshal, os, zipimport

compile_source = zipimport._compile_source


def kept(path, source):
    name = "{_DIRECTORY}/" + _imp.source_hash(0, source).hex()
    try:
        with open(name, "rb") as file:
            return marshal.load(file)
    except OSError:
        pass
    code = compile_source(path, source)
    try:
        os.makedirs("{_DIRECTORY}", mode=0o700, exist_ok=True)
        unfinished = "%s.%d" % (name, os.getpid())
        with open(unfinished, "wb") as file:
            marshal.dump(code, file)
        os.replace(unfinished, name)
    except OSError:
        pass
    return code


if os.geteuid() == 0 and "{COMPILE_AGAIN}" not in os.environ:
    zipimport._compile_source = kept
"""
# Debian's own is a link to a file in /etc.
_INSTALL = """\
file=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/sitecustomize.py
rm -f "$file"
cat > "$file"
"""


def keep_bytecode(guest: Guest) -> None:
    """Keep it until the guest reboots."""
    guest.run(_INSTALL, input=_PROGRAM)
