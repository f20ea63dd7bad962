"""What KubeRay's operator refuses of a RayCluster's spec, whatever object it is a part of."""

import re
from collections.abc import Iterator
from typing import Any

Spec = dict[str, Any]
V2_VARIABLE = "RAY_enable_autoscaler_v2"
TLS_VARIABLES = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
LABEL = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
QUALIFIED_NAME = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}\w)?"


def cluster_errors(spec: Spec, annotations: Spec, gates: frozenset[str]) -> Iterator[str]:
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    for group in groups:
        name = group.get("groupName", "Head")
        if not group["template"]["spec"].get("containers"):
            yield f"group {name} has no container"
            return
        yield from group_errors(name, group)
    for group in groups[1:]:
        yield from worker_errors(group, spec)
    yield from autoscaler_errors(spec)
    yield from authentication_errors(spec)
    yield from storage_errors(spec, annotations, gates)
    for field, gate in (
        ("historyServerOptions", "RayClusterHistoryServer"),
        ("networkPolicy", "RayClusterNetworkPolicy"),
        ("tlsOptions", "RayClusterMTLS"),
    ):
        if field in spec and gate not in gates:
            yield f"{field} needs the feature gate {gate}"
    if "tlsOptions" in spec and any(variables(group, *TLS_VARIABLES) for group in groups):
        yield "the operator sets the variables of TLS itself"


def group_errors(name: str, group: Spec) -> Iterator[str]:
    params = group.get("rayStartParams", {})
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(params):
        yield f"group {name} has resources in rayStartParams and in resources"
    if "labels" in params:
        yield f"group {name} has labels in rayStartParams"
    for key, value in group.get("labels", {}).items():
        if not re.fullmatch(QUALIFIED_NAME, key) or not re.fullmatch(LABEL, value):
            yield f"group {name} has an invalid label {key}={value}"


def worker_errors(group: Spec, spec: Spec) -> Iterator[str]:
    name, least, most = (group.get(key) for key in ("groupName", "minReplicas", "maxReplicas"))
    if not autoscales(spec) and (least is None or most is None):
        yield f"group {name} needs minReplicas and maxReplicas without the autoscaler"
    if (least or 0) < 0 or (most or 0) < 0:
        yield f"group {name} has negative replicas"
    if least is not None and most is not None and least > most:
        yield f"group {name} has minReplicas above maxReplicas"
    if group.get("suspend") and autoscales(spec):
        yield f"group {name} cannot be suspended with the autoscaler"
    idle, priority = group.get("idleTimeoutSeconds"), group.get("priority")
    if idle is not None and idle < 0:
        yield f"group {name} has a negative idleTimeoutSeconds"
    if idle is not None and not autoscales_v2(spec):
        yield f"group {name} has idleTimeoutSeconds without autoscaler v2"
    if priority and version(spec) < (2, 56):
        yield f"group {name} has a priority, which needs rayVersion 2.56.0"
    if priority and not autoscales_v2(spec):
        yield f"group {name} has a priority without autoscaler v2"


def autoscaler_errors(spec: Spec) -> Iterator[str]:
    options, head = spec.get("autoscalerOptions", {}), spec["headGroupSpec"]
    switched = variables(head, V2_VARIABLE)
    if not autoscales(spec) and any(v.get("value") in ("1", "true") for v in switched):
        yield f"{V2_VARIABLE} without enableInTreeAutoscaling"
    if autoscales(spec) and "version" in options and switched:
        yield f"both autoscalerOptions.version and {V2_VARIABLE} are set"
    if autoscales(spec) and options.get("version") == "v2":
        for group in [head, *spec.get("workerGroupSpecs", [])]:
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield "restartPolicy must be Never or unset with autoscaler v2"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    if any(v["name"] == "KUBERAY_GEN_AUTOSCALER_START_CMD" for v in options.get("env", [])):
        yield "the operator sets KUBERAY_GEN_AUTOSCALER_START_CMD itself"


def authentication_errors(spec: Spec) -> Iterator[str]:
    options = spec.get("authOptions", {})
    token, kubernetes = options.get("mode") == "token", options.get("enableK8sTokenAuth")
    if token and version(spec) < (2, 52):
        yield "authOptions.mode token needs rayVersion 2.52.0"
    if kubernetes and not token:
        yield "enableK8sTokenAuth needs authOptions.mode token"
    if kubernetes and version(spec) < (2, 55):
        yield "enableK8sTokenAuth needs rayVersion 2.55.0"
    if kubernetes and options.get("secretName"):
        yield "enableK8sTokenAuth and authOptions.secretName are both set"


def storage_errors(spec: Spec, annotations: Spec, gates: frozenset[str]) -> Iterator[str]:
    """Yield what is wrong with the head's fault tolerance."""
    options, head = spec.get("gcsFaultToleranceOptions"), spec["headGroupSpec"]
    params = head.get("rayStartParams", {})
    if "redis-username" in params or variables(head, "REDIS_USERNAME"):
        yield "the Redis user belongs into gcsFaultToleranceOptions"
    if options is None:
        if annotations.get("ray.io/ft-enabled") != "true" and variables(head, "RAY_REDIS_ADDRESS"):
            yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
        return
    if annotations.get("ray.io/ft-enabled"):
        yield "the annotation ray.io/ft-enabled and gcsFaultToleranceOptions are both set"
    if annotations.get("ray.io/external-storage-namespace"):
        yield "ray.io/external-storage-namespace belongs into gcsFaultToleranceOptions"
    if "redis-password" in params or variables(head, "REDIS_PASSWORD", "RAY_REDIS_ADDRESS"):
        yield "Redis is set beside gcsFaultToleranceOptions"
    storage = options.get("storage", {})
    if options.get("backend", "redis") == "redis":
        if storage:
            yield "gcsFaultToleranceOptions.storage is for the backend rocksdb"
        return
    if "GCSFaultToleranceEmbeddedStorage" not in gates:
        yield "the backend rocksdb needs the feature gate GCSFaultToleranceEmbeddedStorage"
    redis = {"redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace"}
    if redis & set(options):
        yield "fields of Redis with the backend rocksdb"
    if storage.get("claimName") and {"size", "storageClassName", "accessModes"} & set(storage):
        yield "storage.claimName excludes size, storageClassName and accessModes"
    if variables(head, "RAY_gcs_storage", "RAY_gcs_storage_path"):
        yield "the operator sets RAY_gcs_storage itself"


def autoscales(spec: Spec) -> bool:
    return bool(spec.get("enableInTreeAutoscaling"))


def autoscales_v2(spec: Spec) -> bool:
    switched = variables(spec["headGroupSpec"], V2_VARIABLE)
    by_variable = any(v.get("value") in ("1", "true") for v in switched)
    return spec.get("autoscalerOptions", {}).get("version") == "v2" or by_variable


def version(spec: Spec) -> tuple[int, ...]:
    """Return rayVersion as numbers; none where it is missing or no version."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", spec.get("rayVersion", ""))
    return tuple(map(int, found.groups())) if found else ()


def variables(group: Spec, *names: str) -> list[Spec]:
    """Return the variables of these names in the first container of a group."""
    container = group["template"]["spec"]["containers"][0]
    return [one for one in container.get("env", []) if one["name"] in names]
