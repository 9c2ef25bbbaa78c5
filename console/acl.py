"""`steersman acl`: the rights that each kind of client needs in Kafka, as a table, as commands, and created."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from console.options import Brokers, Json
from console.output import err, out, print_json, print_rows
from console.target import Target, resolve
from doors.settings import load_settings as door_settings
from sinks.settings import load_settings as sink_settings
from steersman.errors import ConfigError, SteersmanError
from steersman.kafka_admin import KafkaAdmin
from steersman.topics import Topics
from streams.access import Grant, Role, chosen, commands, grants, principals, roles

app = typer.Typer(no_args_is_help=True, help="The rights that services need in Kafka: show, print and create them.")

OK, MISSING = 0, 4
_TIMEOUT_S = 15.0
_COLUMNS = ["principal", "resource", "name", "pattern", "operation", "state"]
_SETUP = (
    "in KRaft set authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer, super.users and "
    "allow.everyone.if.no.acl.found=false (docs/kafka-access.md)"
)

Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="Only this role; repeat it for several. The roles of every deployment by default."),
]
Principals = Annotated[
    list[str] | None,
    typer.Option(
        "--principal",
        help="ROLE=User:NAME, where it is not User: and the role's name; repeat it, also for several agents.",
    ),
]


@app.command(
    "list",
    epilog="Examples: steersman acl list · steersman acl list --role agent --principal agent=User:support --json",
)
def list_acls(role: Roles = None, principal: Principals = None, brokers: Brokers = None, as_json: Json = False) -> None:
    """Compare the rights that are needed with those that the brokers have: there, missing, extra. Exit 4 when one is missing."""
    target = resolve(brokers)
    wanted, _ = _wanted(target, role, principal)
    admin = KafkaAdmin(target.brokers)
    check(admin, "DESCRIBE")
    rows = compare(wanted, existing(admin, {one.principal for one in wanted}))
    print_rows(_COLUMNS, [_row(one, state) for one, state in rows], as_json=as_json)
    raise typer.Exit(MISSING if any(state == "missing" for _, state in rows) else OK)


@app.command(
    "commands", epilog="Example: steersman acl commands --brokers k1:9093 --command-config admin.properties > acls.sh"
)
def print_commands(
    role: Roles = None,
    principal: Principals = None,
    command_config: Annotated[
        str | None, typer.Option(help="Properties file of whoever runs them, for kafka-acls.sh --command-config.")
    ] = None,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Print the kafka-acls.sh lines that create the rights, for whoever administers the brokers. Asks no broker."""
    target = resolve(brokers)
    wanted, _ = _wanted(target, role, principal)
    lines = list(commands(wanted, target.brokers, command_config))
    if as_json:
        print_json(lines)
        return
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(
    "apply",
    epilog="Examples: steersman acl apply · steersman acl apply --yes · steersman acl apply --role sink --yes --json",
)
def apply(
    role: Roles = None,
    principal: Principals = None,
    yes: Annotated[bool, typer.Option("--yes", help="Create them. Without it nothing is changed.")] = False,
    brokers: Brokers = None,
    as_json: Json = False,
) -> None:
    """Create the rights that are missing; a dry run unless --yes is given. Takes away none. Needs a super user."""
    target = resolve(brokers)
    wanted, _ = _wanted(target, role, principal)
    admin = KafkaAdmin(target.brokers)
    check(admin, "ALTER" if yes else "DESCRIBE")
    there = existing(admin, {one.principal for one in wanted})
    missing = [one for one in wanted if one not in there]
    if yes:
        create(admin, missing)
    state = "created" if yes else "would be created"
    if as_json:
        print_json(
            {"dry_run": not yes, "there": len(wanted) - len(missing), "acls": [_named(one, state) for one in missing]}
        )
        return
    if missing:
        print_rows(_COLUMNS, [_row(one, state) for one in missing], as_json=False)
    err.print(
        f"{len(missing)} {state}, {len(wanted) - len(missing)} were there"
        f"{'' if yes or not missing else '; --yes creates them'}",
        highlight=False,
    )


def compare(wanted: Sequence[Grant], there: set[Grant]) -> list[tuple[Grant, str]]:
    """Pair what is needed with ``there`` or ``missing``, and what is there beyond it with ``extra``."""
    extra = sorted(there - set(wanted), key=lambda one: (one.principal, one.resource, one.name, one.operation))
    return [(one, "there" if one in there else "missing") for one in wanted] + [(one, "extra") for one in extra]


def check(admin: KafkaAdmin, right: str) -> None:
    """Look whether ACLs can be seen (DESCRIBE on the cluster) or changed (ALTER).

    librdkafka 2.16 answers a question for ACLs that is refused with an empty list, and one to change them on brokers without an
    authorizer not at all. So it is asked beforehand.

    Raises
    ------
    ConfigError
        The brokers have no authorizer.
    SteersmanError
        This principal has not that right.
    Unreachable
        No broker answers.
    """
    try:
        cluster = admin.describe_cluster(include_authorized_operations=True).result(_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise admin.unreachable() from error
    rights = {operation.name for operation in cluster.authorized_operations or ()}
    if right not in rights:
        what = "see" if right == "DESCRIBE" else "change"
        raise SteersmanError(
            f"this principal may not {what} ACLs: run it as one of the brokers' super.users, or with {right} on the cluster; "
            "'steersman acl commands' prints what to do for somebody else to run"
        )
    if "DESCRIBE_CONFIGS" in rights and cluster.nodes:
        broker = ConfigResource(ConfigResource.Type.BROKER, str(cluster.nodes[0].id))
        [asked] = admin.describe_configs([broker]).values()
        if not asked.result(_TIMEOUT_S)["authorizer.class.name"].value:
            raise ConfigError(f"the brokers have no authorizer, everybody may do everything: {_SETUP}")


def existing(admin: KafkaAdmin, names: set[str]) -> set[Grant]:
    """Ask the brokers for the rights of some principals; `check` says whether they would answer.

    Raises
    ------
    SteersmanError
        They did not answer.
    """
    anything: Any = None
    every = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, anything, "*", AclOperation.ANY, AclPermissionType.ALLOW
    )
    try:
        bindings = admin.describe_acls(every, request_timeout=_TIMEOUT_S).result(_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise SteersmanError(f"the brokers do not show their ACLs: {error!r}") from error
    return {
        Grant(
            b.principal,
            "CLUSTER" if b.restype == ResourceType.BROKER else b.restype.name,
            b.name,
            b.resource_pattern_type.name,
            b.operation.name,
        )
        for b in bindings
        if b.principal in names
    }


def create(admin: KafkaAdmin, some: Sequence[Grant]) -> None:
    """Create rights and wait until they show; those that are there stay as they are.

    Raises
    ------
    SteersmanError
        The brokers refused one, or do not show it.
    """
    bindings = [
        AclBinding(
            ResourceType.BROKER if one.resource == "CLUSTER" else ResourceType[one.resource],
            one.name,
            ResourcePatternType[one.pattern],
            one.principal,
            "*",
            AclOperation[one.operation],
            AclPermissionType.ALLOW,
        )
        for one in some
    ]
    try:
        for future in admin.create_acls(bindings, request_timeout=_TIMEOUT_S).values() if bindings else ():
            future.result(_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise SteersmanError(f"the brokers do not create ACLs: {error!r}") from error
    deadline = time.monotonic() + _TIMEOUT_S
    while set(some) - existing(admin, {one.principal for one in some}):  # the controller has them; brokers follow
        if time.monotonic() > deadline:
            raise SteersmanError(
                f"the ACLs were created, but do not show within {_TIMEOUT_S:g} s; look at the controllers"
            )
        time.sleep(0.05)


def role_table(target: Target) -> dict[str, Role]:
    """Return the table for the topics and groups of the settings."""
    return roles(
        Topics(target.prefix),
        otlp_topic=door_settings().otlp_topic,
        sink_group=sink_settings(topic_prefix=target.prefix).group,
    )


def _wanted(target: Target, role: list[str] | None, principal: list[str] | None) -> tuple[list[Grant], list[Role]]:
    table = role_table(target)
    some = chosen(table, role)
    return grants(some, principals(table, principal or ())), some


def _row(one: Grant, state: str) -> list[Any]:
    return [one.principal, one.resource, one.name, one.pattern, one.operation, state]


def _named(one: Grant, state: str) -> dict[str, Any]:
    return dict(zip(_COLUMNS, _row(one, state), strict=True))
