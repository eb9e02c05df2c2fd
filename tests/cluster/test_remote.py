"""What a URL's protocol needs, and who asks there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.folder import Folder
from cluster.remote import credentials_of, filesystem, reaching
from cluster.storage import open_store
from tests.stages.text.servers import s3_server

ASK = """
from cluster.remote import filesystem
fs, root = filesystem("gs://bucket/a")
print(root, fs.credentials.token)
"""


WITHOUT = """
import sys
sys.modules[sys.argv[2]] = None
from cluster.errors import UserError
from cluster.remote import filesystem
try:
    filesystem(sys.argv[1])
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "url, package, extra", [("gs://b/a", "gcsfs", "gcs"), ("s3://b/a", "s3fs", "s3")]
)
def test_a_package_that_is_missing_is_named(url: str, package: str, extra: str) -> None:
    """In a process of its own: fsspec remembers what was imported once."""
    command = [sys.executable, "-c", WITHOUT, url, package]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said.startswith(f"{url}: {url[:5]} cannot be used (")
    assert said.endswith(f"; pip install 'raylm[{extra}]'")


def test_a_protocol_that_is_unknown_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"nowhere:// cannot be used .*; use s3://, gs://"):
        filesystem("nowhere://b/a")


def test_the_credentials_to_look_at_are_those_of_the_place() -> None:
    assert "AWS_PROFILE" in credentials_of("s3://b/a")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in credentials_of("gs://b/a")
    assert credentials_of("https://b/a") == ""


def test_a_metadata_server_that_is_silent_is_asked_once() -> None:
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        silent.settimeout(0.2)
        away = {"GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "NO_GCE_CHECK"}
        kept = {name: value for name, value in os.environ.items() if name not in away}
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env=kept | {"GCE_METADATA_IP": place, "CLOUDSDK_CONFIG": "/nonexistent"},
            capture_output=True,
            text=True,
            check=True,
        )
        asked = 0
        try:
            while True:
                silent.accept()[0].close()
                asked += 1
        except TimeoutError:
            pass
    assert done.stdout.split() == ["bucket/a", "anon"], "nobody asks where nobody is known"
    assert asked == 1


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of a process that may ask S3, where nothing answers; nothing remembered."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_MAX_ATTEMPTS": "1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield
    s3fs.S3FileSystem.clear_instance_cache()  # other tests have other servers


def test_a_store_that_does_not_answer_is_worth_another_try(s3: None, tmp_path: Path) -> None:
    folder = Folder("s3://crawls/a", tmp_path)
    store = open_store("s3://crawls/a", cache=tmp_path)
    does_not_answer = r"s3://crawls/a does not answer \(EndpointConnectionError: "
    for ask in (
        lambda: folder.read("state"), lambda: folder.commit("state", b"1"),
        lambda: folder.names("*"), lambda: store.has("examples-1"), lambda: store.ids(),
        lambda: store.write("index", b"1"),
    ):  # fmt: skip
        with pytest.raises(OSError, match=does_not_answer):
            ask()
    with pytest.raises(OSError, match=does_not_answer), folder.writing("shard") as path:
        path.write_bytes(b"1")


def test_what_another_try_would_not_mend_is_the_users_error(
    s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto.server", reason="needs moto[s3] and flask")
    with s3_server("crawls") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        Folder("s3://crawls/a", tmp_path).commit("state", b"1")
        missing = Folder("s3://none-such/a", tmp_path)
        with pytest.raises(UserError, match=r"s3://none-such/a cannot be written .*no such bucket"):
            missing.commit("state", b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    nobody = Folder("s3://crawls/b", tmp_path)
    nobody.fs = type(nobody.fs)(skip_instance_cache=True)
    with pytest.raises(UserError, match=r"s3://crawls/b does not let .*AWS_ACCESS_KEY_ID"):
        nobody.commit("state", b"1")


@pytest.mark.parametrize(
    ("code", "status", "final"),
    [
        ("NoSuchBucket", 404, True),
        ("AccessDenied", 403, True),
        ("NoSuchUpload", 404, False),  # an upload that was aborted; the next one is another
        ("ExpiredToken", 400, False),  # a new process has new credentials
        ("RequestTimeTooSkewed", 403, False),
        ("SlowDown", 503, False),
    ],
)
def test_what_s3_says_under_pythons_names(code: str, status: int, final: bool) -> None:
    from botocore.exceptions import ClientError

    errors = pytest.importorskip("s3fs.errors", reason="needs s3fs")
    answer = {"Error": {"Code": code, "Message": "x"},
              "ResponseMetadata": {"HTTPStatusCode": status}}  # fmt: skip
    with (
        pytest.raises(UserError if final else OSError),
        reaching("s3://crawls/a", writing=True),
    ):
        raise errors.translate_boto_error(ClientError(answer, "PutObject"))


def test_googles_errors_are_told_apart() -> None:
    retry = pytest.importorskip("gcsfs.retry", reason="needs gcsfs")

    def told(error: Exception, url: str = "gs://b/a") -> Exception:
        with pytest.raises(Exception) as caught, reaching(url):
            raise error
        return caught.value

    busy = retry.HttpError({"code": 503, "message": "Service Unavailable"})
    assert str(told(busy)) == "gs://b/a does not answer (HttpError: Service Unavailable, 503)"
    assert type(told(busy)) is OSError
    assert told(busy, "file:///a") is busy
    for refused in (retry.HttpError({"code": 401, "message": "who?"}), OSError("Forbidden: b/a")):
        assert "gcloud auth" in str(told(refused)) and type(told(refused)) is UserError
    ours = KeyError("a fault of the program")
    assert told(ours) is ours
