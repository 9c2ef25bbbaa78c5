"""docs/doors.md: its commands run, its code runs, its settings exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from console.brokers import Broker
from doors.publisher import Publisher
from doors.settings import DoorSettings
from examples.model_server import ModelServer
from steersman.topics import Topics
from streams.topics import create_topics
from tests.doors.served import Served
from tests.doors.test_http import Trace

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "doors.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def topics(broker: Broker) -> Topics:
    made = Topics(f"page{time.time_ns()}")
    create_topics(broker.bootstrap, made, 2)
    return made


def test_the_commands_run(broker: Broker, topics: Topics) -> None:
    commands = [text for language, text in BLOCKS if language == "sh" and "curl" in text]
    assert len(commands) == 3
    publisher = Publisher(broker.bootstrap, max_waiting=100, timeout_s=10)
    served, trace = Served(publisher, topics.trace), Trace(broker.bootstrap, topics.trace)
    try:
        answers: list[Any] = []
        for command in commands:
            assert "http://127.0.0.1:4318" in command
            shell = ["bash", "-ec", command.replace("http://127.0.0.1:4318", served.url)]
            done = subprocess.run(shell, capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stderr
            answers.append(json.loads(done.stdout))
        assert [answer.get("accepted") for answer in answers] == [None, 1, 3]
        events = trace.events(6)
        kinds = sorted(event["kind"] for event in events)
        assert kinds == ["END", "FEEDBACK", "FEEDBACK", "FEEDBACK", "FEEDBACK", "MODEL_CALL"]
        (call,) = (event for event in events if event["kind"] == "MODEL_CALL")
        assert (call["operation"], call["input_tokens"], call["agent"]) == ("gpt-4o", 120, "research")
    finally:
        served.close()
        trace.close()
        publisher.close(5)


def test_the_code_runs(broker: Broker, topics: Topics) -> None:
    (code,) = (text for language, text in BLOCKS if language == "python")
    trace = Trace(broker.bootstrap, topics.trace)
    with ModelServer() as models:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": f"{models.url}/v1",
            "OPENAI_API_KEY": "none",
            "STEERSMAN_BROKERS": broker.bootstrap,
            "STEERSMAN_TOPIC_PREFIX": topics.prefix,
        }
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    try:
        deadline = time.monotonic() + 30
        while (event := trace.events(1)[0])["agent"] != "answerer":
            assert time.monotonic() < deadline
        assert (event["kind"], event["operation"], event["cached_input_tokens"]) == ("MODEL_CALL", "gpt-4o", 64)
    finally:
        trace.close()


def test_the_collectors_configuration_fits_our_names() -> None:
    (config,) = (yaml.safe_load(text) for language, text in BLOCKS if language == "yaml")
    kafka, http = config["exporters"]["kafka/steersman"], config["exporters"]["otlp_http/steersman"]
    settings = {name: field.default for name, field in DoorSettings.model_fields.items()}
    assert kafka["traces"] == {"topic": settings["otlp_topic"], "encoding": "otlp_proto"}
    assert kafka["producer"]["required_acks"] == -1
    assert http["endpoint"].endswith(f":{settings['doors_port']}")
    for pipeline in config["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= config["receivers"].keys()
        assert set(pipeline["processors"]) <= config["processors"].keys()
        assert set(pipeline["exporters"]) <= config["exporters"].keys()


def test_every_setting_is_on_the_page_with_its_default() -> None:
    rows = re.findall(r"^\| (`STEERSMAN_.*?) \| (.*?) \|", PAGE, re.M)
    named: dict[str, str] = {}
    for variables, defaults in rows:
        names, values = re.findall(r"`STEERSMAN_(\w+)`", variables), [d.strip(" `") for d in defaults.split(",")]
        named |= zip(names, values if len(values) == len(names) else values * len(names), strict=True)
    assert named.keys() == {name.upper() for name in DoorSettings.model_fields}
    for name, field in DoorSettings.model_fields.items():
        shown = {None: "none", True: "true", False: "false", "": named[name.upper()]}.get(field.default, field.default)  # type: ignore[call-overload]
        same = float(named[name.upper()]) == shown if isinstance(shown, float | int) else named[name.upper()] == shown
        assert same, name
