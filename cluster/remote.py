"""The file system of a path or URL, through fsspec: what it needs installed, and who asks there.

Who asks is told by the environment, never by an option: `anon: true` says that nobody does, which
is all that public buckets want, and is understood for s3:// and gs:// alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from cluster.errors import UserError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Protocol -> the extra of this package that brings its file system."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`",
}

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
