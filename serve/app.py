"""The endpoint as a Ray Serve application: replicas of `serve.endpoint` behind one address.

`serve` runs it from the command; `build_app` is what KubeRay's RayService imports
(`serve.app:build_app`), with `Settings` as its arguments.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from cluster import session, storage
from cluster.errors import UserError
from serve import access, autoscale, model_folder

APPLICATION = "raylm"
START_DEADLINE_S = 300.0
POLL_S = 0.2


class Settings(BaseModel):
    """What one endpoint needs to know.

    `model` is a folder that every replica's node can read or, with `store`, an artifact there: its
    id or `recipe/stage`, such as `tiny/int8`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    model: str
    store: str | None = None
    name: str | None = None
    """What requests call the model; the last part of `model` unless given."""
    replicas: int = Field(default=1, ge=1, le=1000)
    max_replicas: int | None = Field(default=None, ge=1, le=1000)
    """Where autoscaling ends; no autoscaling unless given."""
    sequences: int = Field(default=16, ge=1, le=1024)
    """Sequences a replica decodes together."""
    threads: int = Field(default=1, ge=1, le=512)
    """CPU threads of one replica's engine."""
    cpus: float = Field(default=1.0, ge=0)
    """Ray's logical CPUs for one replica."""
    keys: tuple[str, ...] = ()
    """API key lines (hashes only), see `serve.access`; none: open to anyone."""
    keys_file: str | None = None
    """A file of such lines on every replica's node, such as a mounted secret."""

    def folder(self) -> Path:
        """Where the model lies on this machine; an object store's artifact is fetched first."""
        if self.store is None:
            return Path(self.model)
        store = storage.open_store(self.store)
        return store.get(storage.find_artifact(store, self.model)).path


class Replica:
    """One replica: an engine, and the ASGI application that Ray Serve routes requests to."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from serve.endpoint import Endpoint

        wanted = Settings.model_validate(settings)
        folder = wanted.folder()
        lines = list(wanted.keys) or access.read_keys(wanted.keys_file)
        model = model_folder.load(folder, sequences=wanted.sequences, threads=wanted.threads)
        self._endpoint = Endpoint(
            model,
            wanted.name or Path(wanted.model).name,
            access.Access([access.parse_key(line) for line in lines]),
            autoscale.capacity(wanted.sequences),
        )

    def __serve_build_asgi_app__(self) -> Any:
        return self._endpoint.application()

    def check_health(self) -> None:
        """Called by Ray Serve: a replica whose engine failed is replaced."""
        if not self._endpoint.loop.healthy:
            raise RuntimeError("the engine failed")


def build_app(args: Mapping[str, Any]) -> Any:
    """The Ray Serve application for these `Settings`; a mistake in them is a UserError."""
    from ray import serve as ray_serve

    try:
        settings = Settings.model_validate(dict(args))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Settings.model_fields)
        raise UserError(f"endpoint setting {key}: {first['msg']}; known: {known}") from None
    options = autoscale.deployment_options(
        settings.replicas, settings.max_replicas, settings.sequences, settings.cpus
    )
    deployment = ray_serve.deployment(name="endpoint", **options)(ray_serve.ingress()(Replica))
    return deployment.bind(settings.model_dump(mode="json"))


def serve(
    model: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    name: str | None = None,
    block: bool = True,
    *,
    max_replicas: int | None = None,
    keys_file: str | Path | None = None,
    console: Console | None = None,
) -> str:
    """Serve the model of a folder at http://host:port and give that URL.

    With `block`, until Ctrl-C, then running requests drain and the endpoint goes away; without, the
    caller ends it with `stop`. A port in use, a folder without a model, a bad key file: UserError.
    """
    folder = Path(model).resolve()
    engine = model_folder.engine_of(folder)
    keys = access.read_keys(keys_file)
    _check_port(host, port)
    name = name or folder.name
    settings = Settings(
        model=str(folder),
        name=name,
        replicas=replicas,
        max_replicas=max_replicas,
        threads=max(1, session.cores() // replicas),
        keys=tuple(keys),
    )
    console = console or Console(stderr=True)
    session.connect(max(session.LOGICAL_CPUS, session.cores(), replicas + 1))
    from ray import serve as ray_serve

    _start(settings, host, port)
    url = f"http://{_display(host)}:{port}"
    console.print(
        f"{name} answers at {url} ({engine}, {replicas} replica(s), {_open_to(keys)})",
        soft_wrap=True,
    )
    console.print(f"try: {example(url, name)}", soft_wrap=True, highlight=False)
    console.print(
        f"or:  raylm chat --url {url}; or open {url} in a browser", soft_wrap=True, highlight=False
    )
    if not block:
        return url
    try:
        _wait(console)
    finally:
        if session.started_here():
            ray_serve.delete(APPLICATION)  # drained; what is left of Serve ends with its Ray
        else:
            stop()
        session.disconnect()
    return url


def stop() -> None:
    """Drain the replicas and take the endpoint down."""
    from ray import serve as ray_serve

    ray_serve.shutdown()


def example(url: str, name: str) -> str:
    """A curl command that talks to the endpoint."""
    message = {"role": "user", "content": "What is 12 + 30?"}
    body = json.dumps({"model": name, "messages": [message]})
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def _start(settings: Settings, host: str, port: int) -> None:
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions
    from ray.serve.exceptions import RayServeException

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    application = build_app(settings.model_dump(mode="json"))
    try:
        ray_serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(host=host, port=port),
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        target = ray_serve.RunTarget(application, name=APPLICATION, route_prefix="/")
        ray_serve.run_many([target], wait_for_applications_running=False)
        _wait_until_running(START_DEADLINE_S)
    except (RayServeException, RuntimeError) as problem:
        ray_serve.shutdown()
        raise UserError(
            f"the endpoint did not start: {problem}; the replicas' logs lie in"
            f" {session.log_folder()}/serve"
        ) from problem


def _wait_until_running(deadline_s: float) -> None:
    """Until all replicas run; a RuntimeError with Ray Serve's own words where they do not."""
    from ray import serve as ray_serve

    ends = time.monotonic() + deadline_s
    while True:
        application = ray_serve.status().applications[APPLICATION]
        if application.status == "RUNNING":
            return
        if application.status == "DEPLOY_FAILED" or time.monotonic() > ends:
            said = [application.message, *(d.message for d in application.deployments.values())]
            state = f"it is {application.status.lower()} after {deadline_s:.0f} s"
            raise RuntimeError(next(filter(None, said), state))
        time.sleep(POLL_S)


def _wait(console: Console) -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("draining: running requests finish, new ones are refused")


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise UserError(
                f"cannot listen on {host}:{port}: {problem.strerror}; stop what uses it, or choose"
                " another with --port"
            ) from None


def _display(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _open_to(keys: list[str]) -> str:
    return f"{len(keys)} API key(s)" if keys else "no API key"
