"""What KubeRay's operator refuses beyond the schema: `utils/validation.go` of v1.7.0 as checks.

A check yields a message for each problem of a manifest that has its defaults; the operator tells
the first alone. Fields that no manifest of ours may hold (Redis, history server, TLS) are checked
as far as they are refused.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from kuberay_cluster_rules import Spec, autoscales, cluster_errors

ON_BY_DEFAULT = frozenset(
    {"RayJobDeletionPolicy", "RayMultiHostIndexing", "RayServiceIncrementalUpgrade"}
)
LONGEST_NAME = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
CRON = r"@(hourly|daily|weekly|monthly|yearly)|([\d*,/-]+ ){4}[\w*,/-]+"


def operator_errors(manifest: Spec, gates: frozenset[str] = ON_BY_DEFAULT) -> list[str]:
    """Return what an operator with these feature gates refuses; `manifest` has its defaults."""
    kind, spec = manifest["kind"], manifest["spec"]
    annotations = manifest["metadata"].get("annotations", {})
    found = list(name_errors(kind, manifest["metadata"]["name"]))
    if kind == "RayCluster":
        found += cluster_errors(spec, annotations, gates)
    elif kind == "RayJob":
        found += job_errors(spec, annotations, gates)
    elif kind == "RayService":
        found += service_errors(spec, annotations, gates)
    else:
        found += cron_errors(spec, gates)
    return found


def name_errors(kind: str, name: str) -> Iterator[str]:
    if len(name) > LONGEST_NAME[kind]:
        yield f"{kind} name is longer than {LONGEST_NAME[kind]} characters"
    if kind != "RayCronJob" and not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"{kind} name is no DNS1035 label"


def job_errors(spec: Spec, annotations: Spec, gates: frozenset[str]) -> Iterator[str]:
    cluster, selector = spec.get("rayClusterSpec"), spec.get("clusterSelector")
    mode, retries = spec.get("submissionMode", "K8sJobMode"), spec.get("backoffLimit", 0)
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspend needs shutdownAfterJobFinishes"
    if spec.get("suspend") and selector:
        yield "clusterSelector excludes suspend"
    if cluster is None and not selector:
        yield "neither rayClusterSpec nor clusterSelector"
    if selector and not selector.get("ray.io/cluster"):
        yield "clusterSelector names no cluster"
    if selector and mode == "SidecarMode":
        yield "clusterSelector excludes SidecarMode"
    if selector and retries > 0:
        yield "clusterSelector excludes backoffLimit"
    if mode == "InteractiveMode" and retries > 0:
        yield "InteractiveMode excludes backoffLimit"
    if mode == "SidecarMode":
        if "submitterPodTemplate" in spec or "submitterConfig" in spec:
            yield "SidecarMode has no submitter's pod"
        if cluster and cluster["headGroupSpec"]["template"]["spec"].get(
            "restartPolicy", "Never"
        ) != ("Never"):
            yield "SidecarMode needs the head's restartPolicy Never"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} must be positive"
    if retries < 0:
        yield "backoffLimit is negative"
    try:
        yaml.safe_load(spec.get("runtimeEnvYAML", ""))
    except yaml.YAMLError:
        yield "runtimeEnvYAML is no YAML"
    yield from deletion_errors(spec)
    if cluster:
        if cluster.get("authOptions", {}).get("enableK8sTokenAuth"):
            yield "enableK8sTokenAuth is not for a RayJob"
        yield from cluster_errors(cluster, annotations, gates)


def deletion_errors(spec: Spec) -> Iterator[str]:
    ttl, shutdown = spec.get("ttlSecondsAfterFinished", 0), spec.get("shutdownAfterJobFinishes")
    if ttl < 0:
        yield "ttlSecondsAfterFinished is negative"
    if ttl > 0 and not shutdown:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    rules = strategy.get("deletionRules", [])
    if not rules and not {"onSuccess", "onFailure"} <= set(strategy):
        yield "deletionStrategy needs deletionRules, or onSuccess and onFailure"
    if rules and shutdown:
        yield "deletionRules exclude shutdownAfterJobFinishes"
    if rules and {"onSuccess", "onFailure"} & set(strategy):
        yield "deletionRules exclude onSuccess and onFailure"
    seconds: dict[str, dict[str, int]] = {}
    for rule in rules:
        condition, policy = rule["condition"], rule["policy"]
        states = [
            condition[key] for key in ("jobStatus", "jobDeploymentStatus") if key in condition
        ]
        if len(states) != 1:
            yield "a deletion rule needs one of jobStatus and jobDeploymentStatus"
            continue
        if condition.get("ttlSeconds", 0) < 0:
            yield "a deletion rule has negative ttlSeconds"
        if spec.get("clusterSelector") and policy in ("DeleteCluster", "DeleteWorkers"):
            yield f"clusterSelector excludes {policy}"
        if policy == "DeleteWorkers" and autoscales(spec.get("rayClusterSpec", {})):
            yield "DeleteWorkers is not for a cluster with the autoscaler"
        if policy in seconds.setdefault(states[0], {}):
            yield f"two rules for {policy} on {states[0]}"
        seconds[states[0]][policy] = condition.get("ttlSeconds", 0)
    for ttls in seconds.values():
        order = [p for p in ("DeleteWorkers", "DeleteCluster", "DeleteSelf") if p in ttls]
        if any(ttls[first] > ttls[then] for first, then in pairwise(order)):
            yield "workers go before the cluster, and the cluster before the job"


def service_errors(spec: Spec, annotations: Spec, gates: frozenset[str]) -> Iterator[str]:
    cluster = spec["rayClusterConfig"]
    timeout = annotations.get("ray.io/initializing-timeout")
    if timeout and not re.fullmatch(r"[1-9]\d*|([1-9]\d*(\.\d+)?(ms|s|m|h))+", timeout):
        yield f"ray.io/initializing-timeout is {timeout}"
    if cluster.get("authOptions", {}).get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is not for a RayService"
    if cluster["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        yield "the head's service must not be named"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    yield from cluster_errors(cluster, annotations, gates)
    strategy = spec.get("upgradeStrategy", {})
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return
    options = strategy.get("clusterUpgradeOptions", {})
    if not autoscales(cluster):
        yield "an incremental upgrade needs the autoscaler"
    if not options.get("gatewayClassName"):
        yield "an incremental upgrade needs gatewayClassName"
    if options.get("intervalSeconds", 0) <= 0:
        yield "an incremental upgrade needs intervalSeconds above 0"
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not 0 <= surge <= 100 or not 0 <= step <= 100:
        yield "percents of an incremental upgrade are 0 to 100"
    if step > surge:
        yield "stepSizePercent is above maxSurgePercent"


def cron_errors(spec: Spec, gates: frozenset[str]) -> Iterator[str]:
    if "RayCronJob" not in gates:
        yield "RayCronJob needs the feature gate RayCronJob"  # without it, nobody looks at it
    if "TZ" in spec["schedule"]:
        yield "the time zone belongs into timeZone"
    elif not re.fullmatch(
        r"@(hourly|daily|weekly|monthly|yearly)|([\d*,/-]+ ){4}[\w*,/-]+", spec["schedule"]
    ):
        yield f"no cron schedule: {spec['schedule']}"
    try:
        if "timeZone" in spec:
            ZoneInfo(spec["timeZone"])
    except (ValueError, ZoneInfoNotFoundError):
        yield f"no time zone: {spec['timeZone']!r}"
    yield from job_errors(spec["jobTemplate"], {}, gates)
