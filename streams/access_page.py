"""``python -m streams.access_page``: write ``docs/kafka-access.md`` from the table of rights."""

from __future__ import annotations

from pathlib import Path

from steersman.kafka_security import KafkaOptions
from steersman.topics import Topics
from streams.access import DEFAULT_ROLES, Role, roles

PAGE = Path(__file__).resolve().parent.parent / "docs" / "kafka-access.md"
_HEAD = """# Who may do what in Kafka

Made by `python -m streams.access_page` from `streams/access.py` and `steersman/kafka_security.py`; do not edit. How to set up brokers, users
and certificates is in `kafka-security.md`.

Each kind of client is a role with a principal of its own, and may do what is listed and nothing else. `steersman acl apply --yes` creates
these rights, `steersman acl commands` prints them for `kafka-acls.sh`, `steersman acl list` compares them with what the brokers have, and
`steersman doctor --role ROLE`, run with the credentials of a service, says what it lacks. `tests/trust/test_acl.py` tries every role
against every topic and group on Apache Kafka, and runs the services as their principals.

The principal of a role is `User:` and its name; `--principal agent=User:support --principal agent=User:billing` names others, also
several for one role. The names below are those of the prefix `steersman` (`STEERSMAN_TOPIC_PREFIX`).
"""
_FOOT = """
## What this does not separate

- Trace stage and learning stage keep their states in one topic: a processor that is taken over can damage, though not sign, what learners
  have saved. A damaged state is noticed by its digest only where it was damaged by accident.
- Agents of all tenants write one topic. Whoever may write it may name any tenant in an event; where tenants do not trust each other,
  give each a prefix (a deployment) of its own, or let their agents come in by the doors, which know the tenant by its token.
- An agent may read the policies of every tenant of its prefix: they hold weights, names of models and tools, no content.
"""


def page() -> str:
    """Return the page."""
    table = roles(Topics()).values()
    parts = [_HEAD, "\n## Settings of every client\n\n", *_settings(), "\n## Roles of every deployment\n"]
    for role in table:
        if role.name in DEFAULT_ROLES:
            parts += _section(role)
    parts.append(
        "\n## Roles of some deployments\n\nOnly with `--role`: stages in processes of their own, and programs of others.\n"
    )
    for role in table:
        if role.name not in DEFAULT_ROLES:
            parts += _section(role)
    return "".join([*parts, _FOOT])


def _settings() -> list[str]:
    lines = ["| variable | says |\n| --- | --- |\n"]
    for name, field in KafkaOptions.model_fields.items():
        default = f" (default {field.default})" if field.default else ""
        lines.append(f"| `STEERSMAN_{name.upper()}` | {field.description}{default} |\n")
    return lines


def _section(role: Role) -> list[str]:
    parts = [f"\n### {role.name}\n\nIs {role.who}.\n\n| resource | operations | for |\n| --- | --- | --- |\n"]
    for rule in role.rules:
        name = f"`{rule.name}*`" if rule.pattern == "PREFIXED" else f"`{rule.name}`"
        parts.append(f"| {rule.resource.lower()} {name} | {', '.join(rule.operations)} | {rule.why} |\n")
    return parts


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
