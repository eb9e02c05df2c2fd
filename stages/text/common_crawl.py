"""A Common Crawl dump by its name: the files that its path listing names.

Every dump keeps `crawl-data/<dump>/<kind>.paths.gz`, one path a line, relative to the base, which
is the same for HTTPS (https://data.commoncrawl.org) and S3 (s3://commoncrawl).
"""

from __future__ import annotations

import gzip
import re
import zlib

from cluster.errors import UserError
from stages.text.files import FileInfo, Options, open_file

BASE = "https://data.commoncrawl.org"
_DUMP = re.compile(r"CC-(MAIN-\d{4}-(\d{2}|\d{2}-\d{2})|NEWS/\d{4}/\d{2})")


def dump_files(
    dump: str, kind: str = "warc", base: str = BASE, options: Options | None = None
) -> list[FileInfo]:
    """The dump's archives of one kind ("warc", "wet") in the listing's order."""
    if not _DUMP.fullmatch(dump):
        raise UserError(
            f"common_crawl: {dump!r} is no name of a dump; expected one like CC-MAIN-2024-22"
            " (https://index.commoncrawl.org lists them) or CC-NEWS/2024/05"
        )
    base = base.rstrip("/")
    listing = f"{base}/crawl-data/{dump}/{kind}.paths.gz"
    try:
        with open_file(listing, options) as file:
            lines = gzip.decompress(file.read()).decode("utf-8").split()
    except UserError as error:
        raise UserError(
            f"the listing of Common Crawl's dump {dump} cannot be read from {listing}: {error};"
            " check the dump's name, and `base` if you read from a mirror"
        ) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{listing} is no gzip listing of paths ({error})") from error
    return [FileInfo(f"{base}/{line}", line) for line in lines]
