"""Options that many commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
Brokers = Annotated[str | None, typer.Option(help="Kafka bootstrap servers, e.g. 127.0.0.1:9092.")]
ClickHouse = Annotated[str | None, typer.Option(help="ClickHouse URL, e.g. http://user:password@host:8123.")]
PoliciesFile = Annotated[Path, typer.Option("--policies", envvar="STEERSMAN_POLICIES", help="The policies file.")]
Tenant = Annotated[str, typer.Option(envvar="STEERSMAN_TENANT", help="Tenant.")]
DEFAULT_POLICIES = Path(__file__).resolve().parent.parent / "policies.toml"
