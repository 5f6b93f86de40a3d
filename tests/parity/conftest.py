"""Fixtures of the parity tests."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "redis_server_fixtures", Path(__file__).parent / "redis_server.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
free_port, redis_process, redis_server = (
    _module.free_port,
    _module.redis_process,
    _module.redis_server,
)
