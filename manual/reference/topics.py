"""The topics: names, keys, partitions and settings, as they are created."""

from __future__ import annotations

from manual.reference.markdown import code, table
from steersman.topics import Topics
from streams.topics import topic_specs

_HEAD = """# Topics

`steersman topics --create` (or `python -m streams topics`) makes those that are missing, with the cluster's replication. The prefix `steersman` is
`STEERSMAN_TOPIC_PREFIX`; 12 partitions are the default of `STEERSMAN_PARTITIONS`. Trace, reward and state topic must have equally many. Events, feedback
and END of one trace have the trace id as their key, partitioned by murmur2 as Kafka's own clients do.
"""


def page() -> str:
    """Return the page."""
    topics = Topics()
    told = {
        getattr(topics, name): (member.__doc__ or "")
        for name, member in vars(Topics).items()
        if isinstance(member, property)
    }
    rows = []
    for spec in topic_specs(topics, 12):
        settings = ", ".join(code(f"{key}={value}") for key, value in spec.config.items())
        rows.append((code(spec.name), spec.partitions, told.get(spec.name, "").replace("``", "`"), settings))
    return "\n".join([_HEAD, table(("topic", "partitions", "holds", "settings"), rows)])
