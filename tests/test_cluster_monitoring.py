"""Prometheus and Grafana ask for metrics that Ray and our engine export."""

import inspect
import json
import re
from typing import Any

import pytest
import yaml
from ray.dashboard.modules.metrics.dashboards import (
    default_dashboard_panels,
    serve_dashboard_panels,
    train_dashboard_panels,
)
from ray.util import metrics
from shell_commands import ROOT

from serve.engines.metrics import EngineMetrics

MONITORING = ROOT / "cluster" / "monitoring"
OF_RAY = "".join(
    inspect.getsource(module)
    for module in (default_dashboard_panels, serve_dashboard_panels, train_dashboard_panels)
)
"""Ray's own dashboards: what they ask for, this release exports."""


def exported() -> set[str]:
    """The names under which Prometheus sees the metrics of our engine."""
    names = set()
    for metric in vars(EngineMetrics("x")).values():
        if isinstance(metric, metrics.Counter):
            names.add(f"ray_{metric.info['name']}_total")
        elif isinstance(metric, metrics.Histogram):
            names.add(f"ray_{metric.info['name']}_bucket")
        elif isinstance(metric, metrics.Gauge):
            names.add(f"ray_{metric.info['name']}")
    return names


def dashboard() -> dict[str, Any]:
    return json.loads((MONITORING / "grafana_dashboard.json").read_text())


def expressions() -> list[str]:
    alerts = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    asked = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    return asked + [t["expr"] for panel in dashboard()["panels"] for t in panel.get("targets", [])]


def unknown(expression: str) -> set[str]:
    """Names of metrics in an expression that nobody exports."""
    without_labels = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", expression)
    asked = set(re.findall(r"\bray_\w+", without_labels))
    assert asked, expression
    theirs = {name for name in asked if re.search(rf"\b{name}\b", OF_RAY)}
    return asked - theirs - exported()


@pytest.mark.parametrize("expression", expressions())
def test_metrics_that_are_asked_for_are_exported(expression: str) -> None:
    assert not unknown(expression)
    assert expression.count("(") == expression.count(")")


def test_metrics_that_nobody_exports_are_found() -> None:
    assert unknown("sum(rate(ray_lima_token_total[5m]))") == {"ray_lima_token_total"}
    assert unknown("ray_node_disk_fre") == {"ray_node_disk_fre"}


def test_all_metrics_of_the_engine_are_drawn() -> None:
    text = " ".join(expressions())
    assert {name for name in exported() if name not in text} == set()


def test_the_dashboard_is_whole() -> None:
    found = dashboard()
    assert found["uid"] and found["schemaVersion"] >= 39
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    variables = {variable["name"] for variable in found["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panels))) <= variables


def test_prometheus_scrapes_what_ray_and_haproxy_tell() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    ray, haproxy = config["scrape_configs"]
    (files,) = ray["file_sd_configs"][0]["files"]
    assert files == "/tmp/ray/prom_metrics_service_discovery.json"
    assert haproxy["static_configs"] == [{"targets": ["127.0.0.1:9101"]}]
    assert all((MONITORING / name).is_file() for name in config["rule_files"])


def test_the_pod_monitor_names_ports_that_pods_have() -> None:
    monitor = yaml.safe_load((MONITORING / "pod_monitor.yaml").read_text())
    ports = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    for file in (ROOT / "cluster" / "kuberay").rglob("*.yaml"):
        text = file.read_text()
        if "headGroupSpec:" in text:
            assert all(f"name: {port}," in text for port in ports), file
