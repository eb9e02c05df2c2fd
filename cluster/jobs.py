"""Submit a recipe to a Ray cluster as a job, follow it, stop it: the Ray Jobs API.

The cluster runs the raylm that is installed in its image; what travels is the recipe's file alone.
A token for a cluster with token authentication comes from where Ray keeps it: RAY_AUTH_TOKEN,
RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from cluster.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ENDINGS = (".yaml", ".yml")
POLL_S = 0.5
INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell gives it."""


def submit(recipe: str, address: str, arguments: list[str], follow: bool = True) -> int:
    """Run a recipe (a shipped one's name, or a file) on the cluster at `address`.

    `address` is the dashboard's, such as http://head:8265; `arguments` go behind the recipe.
    Gives the job's exit code when followed, else 0. Ctrl-C leaves the job running.
    """
    client = _connect(address)
    job = f"raylm-{_plain(Path(recipe).stem)}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="raylm-submit-") as folder:
        there = _pack(recipe, Path(folder))
        runtime: dict[str, Any] = {"env_vars": {"PYTHONUNBUFFERED": "1"}}
        if there != recipe:
            runtime["working_dir"] = folder
        entrypoint = shlex.join(["raylm", "run", there, *arguments])
        client.submit_job(entrypoint=entrypoint, submission_id=job, runtime_env=runtime)
    _say(f"job {job} submitted to {address}: {entrypoint}")
    if not follow:
        _say(_next_steps(job, address))
        return 0
    return follow_job(client, job, address)


def follow_job(client: JobSubmissionClient, job: str, address: str) -> int:
    """Show the job's log until it ends; its exit code."""
    try:
        shown = 0
        while not client.get_job_status(job).is_terminal():
            shown = asyncio.run(_tail(client, job, shown))
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        _say(f"\nthe job runs on. {_next_steps(job, address)}")
        return INTERRUPTED
    details = client.get_job_info(job)
    state = client.get_job_status(job).value
    _say(f"job {job}: {state}" + (f", {details.message}" if details.message else ""))
    if state == "SUCCEEDED":
        return 0
    return details.driver_exit_code or 1


def status(address: str, job: str) -> str:
    """One line: how the job stands."""
    client = _connect(address)
    details = _info(client, job, address)
    state = getattr(details.status, "value", details.status)
    return f"{job}: {state}" + (f", {details.message}" if details.message else "")


def logs(address: str, job: str) -> str:
    """The job's log so far."""
    client = _connect(address)
    _info(client, job, address)
    return str(client.get_job_logs(job))


def stop(address: str, job: str) -> str:
    """Ask the job to stop; what its stages have published stays."""
    client = _connect(address)
    _info(client, job, address)
    stopped = client.stop_job(job)
    return f"{job}: stopping" if stopped else f"{job}: had ended already"


def auth_headers() -> dict[str, str]:
    """The header that carries Ray's token; empty when there is none."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(path) if path else Path.home() / ".ray" / "auth_token"
    if not token and file.is_file():
        token = file.read_text(encoding="utf-8").strip()
    if path and not token:
        raise UserError(f"RAY_AUTH_TOKEN_PATH names {path}, which holds no token")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _connect(address: str) -> JobSubmissionClient:
    if not re.match(r"https?://[^/]", address):
        raise UserError(
            f"the cluster's address is {address!r}; expected its dashboard's, such as"
            " http://127.0.0.1:8265"
        )
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # it tells of every websocket that closes
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address, headers=auth_headers())
    except ConnectionError as problem:
        raise UserError(
            f"no Ray cluster answers at {address}; check the address, and that its dashboard runs"
            " (on Kubernetes: kubectl -n raylm port-forward svc/raylm-head-svc 8265)"
        ) from problem
    except (AuthenticationError, RuntimeError) as problem:
        _refuse(address, problem)


def _refuse(address: str, problem: Exception) -> NoReturn:
    if re.search(r"\b40[13]\b|[Aa]uthentication|[Uu]nauthorized|Forbidden", str(problem)):
        raise UserError(
            f"the cluster at {address} refuses this token, or wants one: put it in RAY_AUTH_TOKEN"
            " (on Kubernetes it is in the secret raylm-ray-token)"
        ) from problem
    raise UserError(f"the cluster at {address} answers with an error: {problem}") from problem


def _info(client: JobSubmissionClient, job: str, address: str) -> Any:
    from ray.exceptions import AuthenticationError

    try:
        return client.get_job_info(job)
    except AuthenticationError as problem:
        _refuse(address, problem)
    except RuntimeError as problem:
        known = [entry.submission_id for entry in client.list_jobs() if entry.submission_id]
        listed = ", ".join(known[:8]) or "none"
        raise UserError(f"there is no job {job!r} at {address}; it has: {listed}") from problem


def _pack(recipe: str, folder: Path) -> str:
    """Copy a recipe's file into `folder` for the job; what to call it there. Names stay names.

    The file that it extends, if it is one beside it, goes along.
    """
    path = Path(recipe)
    if path.suffix not in ENDINGS:
        return recipe
    if not path.is_file():
        raise UserError(f"there is no recipe file {recipe}; give a path, or the name of a recipe")
    text = path.read_text(encoding="utf-8")
    (folder / path.name).write_text(text, encoding="utf-8")
    tree = yaml.safe_load(text)
    base = str(tree.get("extends", "")) if isinstance(tree, dict) else ""
    if Path(base).suffix in ENDINGS and not (folder / base).exists():
        if Path(base).name != base:
            raise UserError(
                f"{recipe} extends {base!r}; a submitted recipe can extend a shipped recipe or a"
                " file in its own folder: put that file beside it"
            )
        _pack(str(path.parent / base), folder)
    return path.name


async def _tail(client: JobSubmissionClient, job: str, shown: int) -> int:
    """Print the log behind its first `shown` characters until it ends or breaks off; the new count.

    The log always comes from its beginning, also after a broken connection.
    """
    place = 0
    try:
        async for text in client.tail_job_logs(job):
            print(text[max(0, shown - place) :], end="", flush=True)
            place += len(text)
    except (RuntimeError, OSError) as problem:
        _say(f"\n(the log broke off: {problem}; trying again)")
    return max(place, shown)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)


def _next_steps(job: str, address: str) -> str:
    return f"see it: raylm logs {job} --address {address}; end it: raylm stop, with the same"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
