"""Replace a model of the running app without a failed request, or go back.

    python -m serve.promote runs/NEW/export                 # the default name answers with NEW
    python -m serve.promote aligned=runs/NEW/export
    python -m serve.promote --rollback

Each replica loads the new model beside the old one and lets it take over between two requests; the
old one ends its replies. An app that `serve run` built, not a config file, gets new replicas in the
place of the old ones, which end their replies too. Then this reports the revision that answers.
Where the model cannot be loaded, the old one goes on and so does the app's configuration.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("promote"))

import logging
import time
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from lima_ray.config.cluster import check_address
from lima_ray.config.errors import UserError
from serve.app import application
from serve.arguments import Args, PromoteCommand
from serve.engines.catalogue import catalogue

ENGINE = "Engine"
WAIT_S = 600.0


def main(given: PromoteCommand) -> None:
    """Change the models of a running app; refuse what is not there or cannot be loaded."""
    if bool(given.model) == given.rollback:
        raise UserError("give a MODEL, or --rollback")
    check_address(given.address)
    try:
        ray.init(
            address=given.address,
            namespace="serve",
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except ConnectionError as error:
        raise UserError(f"no Ray cluster at {given.address}: {error}") from error
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        raise UserError("no Serve app runs on this cluster")
    details = client.get_serve_details()
    name = given.app or only_app(details)
    config = engine_config(details, name)
    before = config["user_config"]
    if given.rollback and not before.get("previous"):
        raise UserError(f"{name} had no promotion to take back")
    models = before["previous"] if given.rollback else changed(before["models"], given.model)
    after = before | {"models": models, "previous": before["models"]}
    try:
        configure(client, details["applications"], name, after)
        await_models(client, name, models)
    except (UserError, RuntimeError, TimeoutError) as error:
        configure(client, client.get_serve_details()["applications"], name, before)
        raise UserError(f"{error}\n  {name} goes on as it was") from error


def only_app(details: dict[str, Any]) -> str:
    """Return the app with an engine, where there is one only."""
    found = [n for n, app in details["applications"].items() if ENGINE in app["deployments"]]
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise UserError(f"--app must name one of the apps here: {names}")
    return found[0]


def engine_config(details: dict[str, Any], name: str) -> dict[str, Any]:
    app = details["applications"].get(name)
    if app is None or ENGINE not in app["deployments"]:
        raise UserError(
            f"no app {name!r} with an engine; there are {list(details['applications'])}"
        )
    return app["deployments"][ENGINE]["deployment_config"]


def changed(models: dict[str, str], model: str) -> dict[str, str]:
    """Return the models with one of them replaced, or added."""
    name, found, path = model.rpartition("=")
    name = name if found else next(iter(models))
    return models | catalogue({name: path})


def configure(client: Any, apps: dict[str, Any], name: str, user_config: dict[str, Any]) -> None:
    """Give an app's engine another configuration.

    An app that came from a config file keeps that file's other settings and its replicas; one that
    `serve run` built is built again with the same arguments.
    """
    config = apps[name]["deployed_app_config"]
    if config is None:
        args = Args.model_validate(user_config["args"] | {"model": user_config["models"]})
        app = application(args, user_config["previous"])
        serve.run(app, name=name, route_prefix=apps[name]["route_prefix"])
        return
    deployments = {one["name"]: one for one in config.get("deployments") or []}
    engine = deployments.get(ENGINE, {"name": ENGINE}) | {"user_config": user_config}
    config["deployments"] = [*(deployments | {ENGINE: engine}).values()]
    declared = [app["deployed_app_config"] for app in apps.values() if app["deployed_app_config"]]
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": declared}))


def await_models(client: Any, name: str, models: dict[str, str]) -> None:
    """Wait until every replica answers with these models, print revisions; refuse a failure."""
    handle = serve.get_deployment_handle(ENGINE, name)
    done: dict[str, dict[str, Any]] = {}
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        state = handle.state.remote().result(timeout_s=60)
        found = state["models"]
        named = [model for name, model in found.items() if model["path"] == models.get(name)]
        if problems := [model["problem"] for model in named if model["problem"]]:
            raise UserError(problems[0])
        if {n: m["path"] for n, m in found.items() if m["settled"]} == models:
            done[state["replica"]] = found
        deployment = client.get_serve_details()["applications"][name]["deployments"][ENGINE]
        replicas = {replica["replica_id"] for replica in deployment["replicas"]}
        if deployment["status"] == "HEALTHY" and replicas <= set(done):
            print_revisions(done, models)
            return
        time.sleep(0.2)
    raise UserError(f"the replicas did not change within {WAIT_S:g} s; `serve status` says more")


def print_revisions(done: dict[str, dict[str, Any]], models: dict[str, str]) -> None:
    found = {(name, m["revision"]) for state in done.values() for name, m in state.items()}
    for name, revision in sorted(found, key=str):
        if revision:
            print(f"{name} answers with revision {revision}, from {models[name]}")
