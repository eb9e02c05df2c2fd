"""What a URL's protocol needs, and who asks there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from cluster.errors import UserError
from cluster.remote import credentials_of, filesystem

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
