"""A store that cannot be reached is one sentence before any work, whatever its client raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.cli import _explain
from stages.opening import open_reachable, unreachable
from tests.stages.test_cli import raylm
from tests.stages.test_recipe import GOOD, write_recipe
from tests.stages.text.servers import GoogleServer, s3_server

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL")


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment that says nothing of who asks, or where."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()  # other tests have other servers


@pytest.fixture
def endpoint(nobody: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("moto.server", reason="needs moto[s3] and flask")
    for name in KEYS[:2]:
        monkeypatch.setenv(name, "test")
    with s3_server("there") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url


@pytest.mark.parametrize("command", ["plan", "run", "report"])
@pytest.mark.usefixtures("nobody")
def test_without_credentials_a_command_says_so(tmp_path: Path, command: str) -> None:
    toy = write_recipe(tmp_path, GOOD)
    done = raylm(tmp_path, command, toy, "--set", "store=s3://bucket/x")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "the store s3://bucket/x cannot be reached (NoCredentialsError: " in done.stderr
    assert "expected one that answers" in done.stderr and "AWS_ACCESS_KEY_ID or" in done.stderr
    assert "fault of the program" not in done.stderr


@pytest.mark.usefixtures("endpoint")
def test_a_bucket_that_does_not_exist(tmp_path: Path) -> None:
    toy = write_recipe(tmp_path, GOOD)
    done = raylm(tmp_path, "plan", toy, "--set", "store=s3://absent/x")
    assert done.returncode == 2
    assert "s3://absent/x lies in a bucket that does not exist: found no 'absent'" in done.stderr
    assert raylm(tmp_path, "plan", toy, "--set", "store=s3://there/x").returncode == 0


def test_a_google_bucket_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    with GoogleServer("there").running() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        assert open_reachable("gs://there/x").runs() == []
        with pytest.raises(UserError, match="bucket that does not exist: found no 'absent'"):
            open_reachable("gs://absent/x")
        server.refused["there"] = 403
        with pytest.raises(UserError, match=r"gs://there/x cannot be reached \("):
            open_reachable("gs://there/x")


@pytest.mark.usefixtures("nobody")
def test_an_address_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS[:2]:
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"cannot be reached \(EndpointConnectionError: .*URL"):
        open_reachable("s3://bucket/x")


def test_what_a_client_raises_later_is_the_stores_too() -> None:
    from botocore.exceptions import NoCredentialsError

    assert "cannot be reached (NoCredentialsError" in str(unreachable(NoCredentialsError()))
    assert _explain(NoCredentialsError()) == 2
    assert unreachable(ValueError("credentials")) is None and _explain(ValueError("x")) == 1


def test_a_folder_is_opened_as_ever(tmp_path: Path) -> None:
    assert open_reachable(str(tmp_path)).url == str(tmp_path)
