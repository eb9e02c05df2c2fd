"""Crawl."""

from typing import Any


def write_crawl(config: Any, context: Any) -> dict[str, Any]:
    raise ValueError
