"""Where the settings of services come from: command line over environment (``STEERSMAN_*``) over a TOML file over defaults.

``STEERSMAN_CONFIG`` names the file. It is flat (``brokers = "k1:9092"``), and one file serves all services: each takes the
keys it knows. `steersman config show` and `steersman doctor` name the keys that none knows.
"""

from __future__ import annotations

from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from steersman.settings_file import settings_file


class ServiceSettings(BaseSettings):
    """Base of the settings of a service."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the file behind the environment."""
        known = {key: value for key, value in settings_file().items() if key in settings_cls.model_fields}
        return init_settings, env_settings, InitSettingsSource(settings_cls, known)
