"""The file system of a path or URL, through fsspec: what it needs installed, who asks there, and
what it means when there is no answer.

Who asks is told by the environment, never by an option: `anon: true` says that nobody does, which
is all that public buckets want, and is understood for s3:// and gs:// alike.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from cluster.errors import UserError, causes

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Protocol -> the extra of this package that brings its file system."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`",
}

_CLIENTS = (
    "botocore", "aiobotocore", "s3fs", "gcsfs", "google", "aiohttp", "requests", "urllib3"
)  # fmt: skip
"""Whose exceptions tell of a place that does not answer; few of them are an OSError."""
_FINAL = (
    "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ProfileNotFound",
    "NoRegionError", "InvalidRegionError", "ParamValidationError",
)  # fmt: skip
"""Those of theirs that would come again: nobody asks, or the question is none."""
_REFUSALS = (401, 403)
_PASSING = ("ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired")
"""Refusals of S3's that new credentials, as a new process gets them, or a clock set right mend."""

# gcsfs reads these from the environment when it is imported, whoever does that first.
for _name, _value in {
    # or it asks of what kind a bucket is by gRPC: a minute for each file where none gets out
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    # seconds and tries until a machine counts as none of Google's
    "GCE_METADATA_TIMEOUT": "1",
    "GCE_METADATA_DETECT_RETRIES": "1",
}.items():
    os.environ.setdefault(_name, _value)


def filesystem(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """fsspec's file system for a path or URL, and the path in it.

    A protocol that is unknown, lacks its package or refuses the options is a UserError.
    """
    import fsspec

    protocol = url.partition("://")[0] if "://" in url else "file"
    extra = _EXTRAS.get(protocol)
    try:
        asked = _google_options(options or {}) if extra == "gcs" else options or {}
        return fsspec.core.url_to_fs(url, **asked)
    except (ImportError, ValueError, TypeError) as error:
        mend = f"pip install 'raylm[{extra}]'" if extra else "use s3://, gs://, https:// or a path"
        raise UserError(f"{url}: {protocol}:// cannot be used ({error}); {mend}") from error


def credentials_of(url: str) -> str:
    """What in the environment tells the place of a URL who asks, or nothing."""
    return _CREDENTIALS.get(_EXTRAS.get(url.partition("://")[0], ""), "")


@contextlib.contextmanager
def reaching(url: str, writing: bool = False) -> Iterator[None]:
    """While inside, what a store's client raises becomes an OSError with the URL where another try
    may help, and a UserError where it would not: nobody asks, asking is not allowed, or the bucket
    that is written to does not exist.

    What an OSError is already, or a fault of ours, passes; so does everything of a local folder.
    """
    try:
        yield
    except Exception as error:
        told = _told(url, error, writing)
        if told is None or "://" not in url or url.startswith("file://"):
            raise
        raise told from error


def _code(error: BaseException) -> str:
    """S3's own word for what is wrong, from under s3fs's translation into Python's exceptions."""
    answers = [getattr(item, "response", None) for item in causes(error)]
    codes = [answer.get("Error", {}).get("Code") for answer in answers if isinstance(answer, dict)]
    return str(next(iter(codes), ""))


def is_from_client(error: BaseException) -> bool:
    """Whether an exception is one of an object store's client, of its own kind."""
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _told(url: str, error: Exception, writing: bool) -> Exception | None:
    """What to raise instead of an exception that came while a URL was asked."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    code = _code(error)
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if writing and code == "NoSuchBucket":
        return UserError(
            f"{url} cannot be written ({said}): there is no such bucket; create it, or give "
            "another store with --set store=..."
        )
    refused = (
        isinstance(error, PermissionError)
        or str(error).startswith("Forbidden")
        or getattr(error, "code", None) in _REFUSALS
    )
    if (refused and code not in _PASSING) or kinds & {*_FINAL}:
        mend = credentials_of(url) or "credentials"
        return UserError(
            f"{url} does not let this process in ({said}): check {mend} in the environment of all "
            "nodes, and what it may do there"
        )
    if isinstance(error, OSError) or not is_from_client(error):
        return None
    return OSError(f"{url} does not answer ({said})")


def _google_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of gcsfs, with who asks named: left to find out itself, it waits for a metadata
    server for a minute, and falls back to a pickle in the home folder.
    """
    import gcsfs  # noqa: F401 (whether it is there, before anything is looked for)

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its errors come as exceptions too
    asked = dict(options)
    nobody = asked.pop("anon", False) or os.environ.get("STORAGE_EMULATOR_HOST")
    return {"token": "anon" if nobody else _google_identity(), **asked}


@cache
def _google_identity() -> str:
    """gcsfs's word for the identity that the environment or the machine has, or for none."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        if found := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise UserError(
                f"GOOGLE_APPLICATION_CREDENTIALS is {found!r}, which cannot be used ({error});"
                " expected the key file of a service account: mend it, or unset it and run"
                " `gcloud auth application-default login`"
            ) from error
        return "anon"
    return "google_default"
