"""``python -m serving.page``: write ``docs/metrics.md`` from the list of metrics."""

from __future__ import annotations

from pathlib import Path

from serving.metrics import METRICS, SERVICES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
_HEAD = """# Metrics and health

Made by `python -m serving.page` from `serving/metrics.py`; do not edit.

Every service answers on a port of its own (`--metrics-port`, `STEERSMAN_METRICS_PORT`; on `STEERSMAN_METRICS_HOST`, by default
127.0.0.1; none unless asked for, `steersman up` asks for one of each and writes them to its `stack.json`):

| path | says |
| --- | --- |
| `/metrics` | the metrics below, and `process_*`, in Prometheus' and OpenMetrics' text formats |
| `/livez` | 200, or 503 with reasons when its loop stands still or records wait and none was committed for `STEERSMAN_STALL_S` (120) seconds: restart it. A dependency that is known to be away is no reason. |
| `/readyz` | 200, or 503 with what keeps it from its work: Kafka or ClickHouse away, no partitions yet, a table that cannot be written |
| `/version` | its version |

`deploy/prometheus/prometheus.yml` scrapes them, `deploy/prometheus/alerts.yml` has rules, `deploy/grafana/` the dashboards.
No label holds a tenant, a trace id or anything else that users make up.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for service in SERVICES:
        parts.append(f"\n## {service}\n\n| metric | type | labels | says |\n| --- | --- | --- | --- |\n")
        for metric in METRICS:
            if service in metric.services:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                parts.append(f"| `{metric.exposed}` | {metric.kind} | {labels} | {metric.help} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
