"""A Kafka admin client that can say why the brokers do not answer."""

from __future__ import annotations

from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from steersman.errors import Unreachable
from steersman.kafka_config import client_config, kafka_logger
from steersman.kafka_security import KafkaSecurity

START_HINT = (
    "Is the broker running, and is the address right? It is set by --brokers or STEERSMAN_BROKERS; "
    "`steersman up` starts a local one"
)
_CREDENTIALS = (
    "the brokers refuse who we say we are: look at STEERSMAN_KAFKA_USERNAME, STEERSMAN_KAFKA_PASSWORD_FILE and "
    "STEERSMAN_KAFKA_SASL_MECHANISM, and at the users of the brokers (kafka-configs.sh --describe --entity-type users)"
)
_TLS = (
    "no TLS connection comes about: does that port speak TLS (STEERSMAN_KAFKA_SECURITY_PROTOCOL)? Look at STEERSMAN_KAFKA_CA_FILE (does it hold the authority that signed the brokers' "
    "certificates, and are they for these host names?), and at STEERSMAN_KAFKA_CERT_FILE where brokers ask for one"
)
_PROTOCOL = (
    "the brokers hang up at once: most likely this is not the protocol of that port; set STEERSMAN_KAFKA_SECURITY_PROTOCOL (and "
    "STEERSMAN_KAFKA_USERNAME, STEERSMAN_KAFKA_CA_FILE) to that of the listener"
)


class KafkaAdmin(AdminClient):
    """confluent-kafka's admin client with the security of this process.

    Parameters
    ----------
    brokers : str
        ``host:port`` list.
    timeout_ms : int
        Longest wait for a broker; unit: milliseconds.
    security : KafkaSecurity, optional
        Another identity than this process's.

    Raises
    ------
    ConfigError
        When a setting ``STEERSMAN_KAFKA_*`` cannot be used.
    """

    def __init__(self, brokers: str, timeout_ms: int = 6000, security: KafkaSecurity | None = None) -> None:
        self._brokers = brokers
        self._said: list[KafkaError] = []
        settings = {"socket.timeout.ms": timeout_ms, "log_level": 0, "error_cb": self._said.append}
        super().__init__(client_config(brokers, settings, security), logger=kafka_logger)

    def unreachable(self, hint: str = START_HINT) -> Unreachable:
        """Make the error for a request that was not answered.

        Parameters
        ----------
        hint : str
            What to do about it where the client has not said anything better.
        """
        self.poll(0)  # hands over what the client has to say
        for error in self._said:
            advice = why_refused(error)
            if advice:
                return Unreachable(f"Kafka at {self._brokers}", f"{error.str().rstrip('. ')}: {advice}")
        codes = {error.code() for error in self._said}
        if codes == {KafkaError._ALL_BROKERS_DOWN}:
            # They took the connection: no error says that it was refused or timed out, or that no such host is known.
            return Unreachable(f"Kafka at {self._brokers}", _PROTOCOL)
        return Unreachable(f"Kafka at {self._brokers}", hint)


def why_refused(error: KafkaError) -> str:
    """Return what to do about an error of a connection; empty when it says nothing about security."""
    if error.code() == KafkaError._AUTHENTICATION:
        return _CREDENTIALS
    said = error.str()
    if "security.protocol" in said:
        return _PROTOCOL
    return _TLS if error.code() == KafkaError._SSL or "SSL" in said else ""
