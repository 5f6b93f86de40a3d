"""Fixtures of real services for the integration tests."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "service_fixtures", Path(__file__).parent.parent / "services.py"
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
certificates, kafka_libs, kafka_broker, redis_service = (
    _module.certificates,
    _module.kafka_libs,
    _module.kafka_broker,
    _module.redis_service,
)
