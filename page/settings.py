"""Settings of the live page, from the environment (``STEERSMAN_*``) and the command line."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from serving.access import LOOPBACK, allowed_hosts, long_enough
from serving.settings import ServiceSettings
from steersman.errors import ConfigError


class PageSettings(ServiceSettings):
    """What the page needs to know; every field is also an environment variable ``STEERSMAN_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="STEERSMAN_", frozen=True)

    brokers: str = Field(
        "127.0.0.1:9092", description="Kafka bootstrap servers, for the weights of policies; '' for none"
    )
    topic_prefix: str = Field("steersman", description="prefix of the topic names")
    registry_url: str | None = Field(None, description="schema registry; unset for none")
    clickhouse_url: str = Field("http://127.0.0.1:8123", description="ClickHouse, as the sink's")
    tenant: str = Field("default", min_length=1, max_length=128, description="whose loop is shown")
    page_host: str = Field("127.0.0.1", description="address to bind; any other than loopback needs a token")
    page_port: int = Field(8500, ge=0, le=65535, description="port, 0 for any free one")
    page_allow_hosts: str = Field("", description="further Host headers to accept, comma-separated")
    page_token: SecretStr | None = Field(None, description="token that opens the page; unset for none")
    page_metrics: str = Field("", description="metrics endpoints to read lag from: name=url, comma-separated")
    page_window_s: int = Field(900, ge=60, le=86_400, description="time that is shown; unit: seconds")
    page_max_viewers: int = Field(200, ge=1, le=10_000, description="most browsers that follow at the same time")
    page_max_per_s: float = Field(
        100.0, ge=0, description="requests of one address in the long run, four times as many at once; unit: per second"
    )

    @field_validator("registry_url", "page_token", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def hosts(self) -> frozenset[str]:
        """Host headers that are answered."""
        return allowed_hosts(self.page_allow_hosts)

    @property
    def token(self) -> str | None:
        """The token, None where everybody on this machine may look.

        Raises
        ------
        ConfigError
            It is too short, or there is none although the page is not on loopback.
        """
        if self.page_token is not None:
            return long_enough(self.page_token.get_secret_value(), "STEERSMAN_PAGE_TOKEN")
        if self.page_host not in LOOPBACK:
            raise ConfigError(
                f"the page would be open to everybody on {self.page_host}: set STEERSMAN_PAGE_TOKEN, or stay on 127.0.0.1"
            )
        return None

    @property
    def endpoints(self) -> dict[str, str]:
        """Metrics endpoints by the name of their service.

        Raises
        ------
        ConfigError
            An entry is not of the form ``name=http://...``.
        """
        found = {}
        for entry in filter(None, (part.strip() for part in self.page_metrics.split(","))):
            name, _, url = entry.partition("=")
            if not name or not url.startswith(("http://", "https://")):
                raise ConfigError(f"STEERSMAN_PAGE_METRICS: {entry!r} is not of the form name=http://host:port/metrics")
            found[name] = url
        return found


def load_settings(**given: object) -> PageSettings:
    """Read the settings; what is given (and not None) wins over the environment.

    Raises
    ------
    ConfigError
        Names every setting that cannot be used.
    """
    return PageSettings.load(**given)
