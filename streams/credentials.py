"""The Kafka security of this process as Faust and aiokafka want it."""

from __future__ import annotations

from typing import Any

import faust

from steersman.kafka_security import KafkaSecurity


def faust_credentials(security: KafkaSecurity) -> Any:
    """Return what Faust's setting ``broker_credentials`` takes; None for PLAINTEXT.

    Raises
    ------
    ConfigError
        As `KafkaSecurity.ssl_context`.
    """
    context = security.ssl_context()
    if security.mechanism:
        return faust.SASLCredentials(
            username=security.username, password=security.password, mechanism=security.mechanism, ssl_context=context
        )
    return None if context is None else faust.SSLCredentials(context)
