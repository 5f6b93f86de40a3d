"""Reads a feature repository's declarations into this process."""

import importlib
import sys
import threading
from pathlib import Path

from onepiece.errors import NotFound

MODULES = ("entities", "views", "services")
"""Files of a feature repository, in the order in which they import each other."""
_lock = threading.Lock()


def load_declarations(repo: Path) -> list[object]:
    """Imports the flat modules of a feature repository, as Feast's CLI does, and forgets them.

    Returns:
        Every value of the modules, each object once.

    Raises:
        NotFound: One of `MODULES` is missing.
    """
    missing = [name for name in MODULES if not (repo / f"{name}.py").is_file()]
    if missing:
        raise NotFound(
            f"{repo} is not a feature repository, it lacks {missing[0]}.py; give the folder "
            "`feature_repo` of the checkout"
        )
    folder = str(repo.resolve())
    with _lock:
        # Names as plain as `views` may be another program's: what was there is put back.
        before = {name: sys.modules.pop(name, None) for name in MODULES}
        sys.path.insert(0, folder)
        try:
            modules = [importlib.import_module(name) for name in MODULES]
        finally:
            sys.path.remove(folder)
            for name, module in before.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module
    return list({id(v): v for module in modules for v in vars(module).values()}.values())
