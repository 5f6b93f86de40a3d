"""Where Redis is and how to reach it: a setting of the deployment, without any secret in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from onepiece.parsing import read_settings

PREFIX = "ONEPIECE_REDIS_"
"""Of the environment's variables that are these settings."""


class RedisSettings(BaseModel):
    """One Redis server, or the address of whatever stands before several.

    The password is never a setting: a file holds it, and each new connection reads the file, so
    that it can be changed under a running process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(
        "127.0.0.1:6379",
        pattern=r"^[^\s:/@,=]+:[0-9]{1,5}$",
        max_length=300,
        description="host:port.",
    )
    username: str = Field(
        "",
        pattern=r"^[^\s,=]*$",
        max_length=128,
        description="User of Redis' access control list; empty for its default user.",
    )
    password_file: Path | None = Field(
        None, description="File that holds the password, and a line end at most; None for none."
    )
    is_tls: bool = Field(False, description="Whether the connection is encrypted.")
    ca_file: Path | None = Field(
        None, description="Certificates that may sign the server's; None for the system's."
    )
    cert_file: Path | None = Field(
        None, description="Certificate of this client, for servers that ask for one."
    )
    key_file: Path | None = Field(None, description="Private key of `cert_file`.")
    connect_timeout_s: float = Field(
        1.0, gt=0.0, le=60.0, description="Longest wait for a connection, in seconds."
    )
    timeout_s: float = Field(
        1.0, gt=0.0, le=60.0, description="Longest wait for an answer, in seconds."
    )

    @model_validator(mode="after")
    def _fit(self) -> "RedisSettings":
        files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
        given = [name for name, path in files.items() if path is not None]
        if given and not self.is_tls:
            raise ValueError(f"{', '.join(given)} given without TLS; set is_tls")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together; give both or neither")
        if self.username and self.password_file is None:
            raise ValueError(f"username is {self.username!r} without a password_file; give one")
        return self

    def options(self) -> dict[str, Any]:
        """Gives the arguments of `redis.Redis` that hold no secret."""
        host, _, port = self.address.rpartition(":")
        options: dict[str, Any] = {
            "host": host,
            "port": int(port),
            "socket_connect_timeout": self.connect_timeout_s,
            "socket_timeout": self.timeout_s,
        }
        if self.is_tls:
            files = {
                "ssl_ca_certs": self.ca_file,
                "ssl_certfile": self.cert_file,
                "ssl_keyfile": self.key_file,
            }
            options["ssl"] = True
            options |= {name: str(path) for name, path in files.items() if path is not None}
        return options


def redis_settings(environment: Mapping[str, str]) -> RedisSettings | None:
    """Reads where Redis is as this process sees it; None if the environment does not say.

    Raises:
        InvalidInput: A variable is unknown or out of bounds.
    """
    if not any(name.startswith(PREFIX) for name in environment):
        return None
    return read_settings(environment, RedisSettings, prefix=PREFIX)
