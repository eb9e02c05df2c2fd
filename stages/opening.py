"""A store opened for a command: one that cannot be reached is a sentence before any work starts.

Clients of object stores each raise exceptions of their own, and only when something is first read.
"""

from __future__ import annotations

from cluster.errors import UserError, causes
from cluster.remote import credentials_of, is_from_client
from cluster.storage import IMPORTS, INDEX, ObjectStore, Store, open_store

NO_BUCKET = "NoSuchBucket"
SHOWN = 200
"""Characters of a client's words that a sentence shows."""


def open_reachable(url: str) -> Store:
    """The store at a folder or URL; one that does not answer, or is not there, is a UserError."""
    store = open_store(url)
    if isinstance(store, ObjectStore):
        try:
            _ask(store)
        except UserError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise UserError(_sentence(url, error)) from error
    return store


def unreachable(error: Exception) -> str | None:
    """The sentence for an exception that an object store's client raised, None for any other."""
    if any(is_from_client(item) for item in causes(error)):
        return _sentence("", error)
    return None


def _ask(store: ObjectStore) -> None:
    """Read something small that may be absent; without its bucket, everything is."""
    bucket = store.root.partition("/")[0]
    try:
        store.fs.cat_file(f"{store.root}/{IMPORTS}/{INDEX}")
        return
    except FileNotFoundError as error:
        answers = [getattr(item, "response", None) for item in causes(error)]
        codes = [answer["Error"].get("Code") for answer in answers if isinstance(answer, dict)]
        there = NO_BUCKET not in codes
    if store.url.startswith(("gs://", "gcs://")):  # which says the same of object and bucket
        there = store.fs.exists(bucket)
    if not there:
        raise UserError(
            f"the store {store.url} lies in a bucket that does not exist: found no {bucket!r} "
            "there, expected one: make it, mend the name, or give another store"
        )


def _sentence(url: str, error: Exception) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN].rstrip(".")
    names = credentials_of(url) or "the credentials"
    network = "the network" if url.startswith("g") else "the network, AWS_ENDPOINT_URL"
    return (
        f"the store {url}{' ' if url else ''}cannot be reached ({said}); expected one that answers "
        f"and lets this user in: set {names} in the environment, check {network} and the bucket's "
        "name, or give another store"
    )
