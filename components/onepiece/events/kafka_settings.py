"""Where Kafka is; apart from the clients, because reading settings needs no Kafka client."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

PREFIX = "ONEPIECE_KAFKA_"
"""Of the environment's variables that are these settings."""


class KafkaSettings(BaseModel):
    """Where the brokers are, how to prove who we are, and how long to wait for them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(
        min_length=1, description="Brokers to ask first, as host:port, separated by commas."
    )
    prefix: str = Field(
        "onepiece",
        pattern=r"^[a-zA-Z0-9._-]{1,200}$",
        description="How the name of every topic and group begins.",
    )
    num_partitions: int = Field(
        8,
        ge=1,
        le=10_000,
        description="Partitions of a topic by user; must never change, because users would move.",
    )
    replication_factor: int = Field(
        -1, ge=-1, le=100, description="Copies of each partition; -1 for the broker's default."
    )
    transactional_id: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Name of this writer, the same after its restart and of no other running "
        "one: a restart then ends what was left open at once. Brokers with access lists know "
        "names that begin with PREFIX-log-. None for a new name each time; readers may then wait "
        "transaction_timeout_s after a writer was killed.",
    )
    timeout_s: float = Field(
        30.0, ge=1.0, le=600.0, description="Longest wait for the brokers in one call, in seconds."
    )
    transaction_timeout_s: float = Field(
        10.0, ge=1.0, le=900.0, description="When brokers end a dead writer's append, in seconds."
    )
    session_timeout_s: float = Field(
        10.0,
        ge=6.0,
        le=300.0,
        description="Silence after which a group's member is taken for dead, in seconds; brokers "
        "allow no less than 6.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Whether the connection is encrypted and the client named."
    )
    sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the password is proven, with a SASL protocol."
    )
    sasl_username: str | None = Field(None, description="Name of this client, with SASL.")
    sasl_password: SecretStr | None = Field(None, description="Its password, with SASL.")
    ssl_ca_file: Path | None = Field(
        None, description="Certificates that are trusted, PEM; None for the system's."
    )
    ssl_certificate_file: Path | None = Field(
        None, description="This client's certificate, PEM, where brokers want one."
    )
    ssl_key_file: Path | None = Field(None, description="Its key, PEM.")

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        has_sasl = self.security_protocol.startswith("SASL")
        if has_sasl != (self.sasl_username is not None and self.sasl_password is not None):
            raise ValueError(
                f"security_protocol is {self.security_protocol}, sasl_username is "
                f"{self.sasl_username!r} and sasl_password is "
                f"{'given' if self.sasl_password else 'not given'}; a SASL protocol needs both, "
                "the others neither"
            )
        files = [self.ssl_ca_file, self.ssl_certificate_file, self.ssl_key_file]
        if not self.is_encrypted and any(path is not None for path in files):
            raise ValueError(
                f"security_protocol is {self.security_protocol}, which is not encrypted, and a "
                "certificate is given; give SSL or SASL_SSL, or no ssl_*_file"
            )
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ValueError(
                f"ssl_certificate_file is {self.ssl_certificate_file} and ssl_key_file "
                f"{self.ssl_key_file}; give both or neither"
            )
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is TLS."""
        return self.security_protocol.endswith("SSL")

    @property
    def timeout_ms(self) -> int:
        """`timeout_s` as the client library takes it."""
        return int(self.timeout_s * 1_000)

    def topic(self, name: str) -> str:
        """Names a topic of `topics.py` on this cluster."""
        return f"{self.prefix}-{name}"
