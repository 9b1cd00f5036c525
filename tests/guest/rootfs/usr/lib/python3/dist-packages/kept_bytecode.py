"""Keeps compiled what Ansible sends as source with each call, in a zip file.

An emulated processor takes a second and a half to compile it, which is half of a call.
"""

import _imp
import marshal
import os
import zipimport

_FOLDER = "/var/cache/kept-bytecode"
_compile = zipimport._compile_source


def _compile_source(path, source):
    kept = "%s/%s" % (_FOLDER, _imp.source_hash(0, source).hex())
    try:
        with open(kept, "rb") as stream:
            return marshal.load(stream)
    except OSError:
        code = _compile(path, source)
        _keep(kept, code)
        return code


def _keep(kept, code):
    unfinished = "%s.%d" % (kept, os.getpid())
    try:
        os.makedirs(_FOLDER, exist_ok=True)
        with open(unfinished, "wb") as stream:
            marshal.dump(code, stream)
        os.replace(unfinished, kept)
    except OSError:
        # Whoever is not root compiles it each time.
        return


zipimport._compile_source = _compile_source
