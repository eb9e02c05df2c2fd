"""A source of the corpus: files, a Common Crawl dump, a Hugging Face dataset or packages."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Profile = Literal["web", "prose", "none"]
Extractor = Literal["resiliparse", "trafilatura"]
_KINDS = ("path", "common_crawl", "dataset", "installed_packages")
_SECRETS = ("key", "secret", "token", "password", "client_secret", "sas_token", "account_key")


class Source(BaseModel):
    """One source: a `path`, a `common_crawl` dump, a `dataset`, or `installed_packages`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    path: str | None = Field(default=None, min_length=1)
    """A file, a folder or a pattern (`*`), local or as a URL (s3://, gs://, https://)."""
    common_crawl: str | None = Field(default=None, min_length=1)
    """A dump's name, such as CC-MAIN-2024-22: every file of its path listing, unless `files`."""
    dataset: str | None = Field(default=None, min_length=1)
    """A Hugging Face dataset: its name on the hub, or a local folder."""
    installed_packages: list[str] | None = Field(default=None, min_length=1)
    """Distribution names, or ["all"]: their documentation and docstrings."""
    name: str | None = None
    """What ids and ledgers call it; the folder's, file's, dump's or dataset's name if not given."""
    format: Literal[
        "auto", "archive", "jsonl", "json", "csv", "parquet", "arrow", "tar", "pages"
    ] = "auto"
    kind: Literal["warc", "wet"] = "warc"
    """Of a dump: pages as they were fetched, or Common Crawl's own plain text of them."""
    base: str = "https://data.commoncrawl.org"
    """Of a dump: where its files lie (s3://commoncrawl inside AWS, or a mirror)."""
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    """Of a dataset on the hub: a branch, tag or commit."""
    text_key: str | None = None
    """Which field of a row is its text; the first of text, content and raw_content if not given."""
    files: list[int] | None = Field(default=None, min_length=1, max_length=3)
    """Which of its files, in their order, as a slice: [stop], [start, stop] or [start, stop, step].
    """
    options: dict[str, Any] = Field(default_factory=dict)
    """For fsspec's file system, such as {anon: true} or {endpoint_url: ...}; no credentials."""
    language: str | None = None
    """Set it to skip language identification."""
    max_bytes: int | None = Field(default=None, gt=0)
    """Read at most this much: of each file, or of all packages together (shared out evenly)."""
    quality: Profile | None = None
    """Which filters judge it; "prose" for packages and "web" for all else if not given."""
    extractor: Extractor | None = None
    """What takes the main text out of its HTML; the stage's choice if not given."""

    @field_validator("options")
    @classmethod
    def _no_secrets(cls, options: dict[str, Any]) -> dict[str, Any]:
        if found := sorted(set(options) & set(_SECRETS)):
            raise ValueError(
                f"`options` holds {', '.join(found)}, which every manifest and log would show:"
                " give credentials in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE,"
                " GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN)"
            )
        return options

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        found = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(found) != 1:
            raise ValueError(
                f"a source has exactly one of {', '.join(_KINDS)}; found"
                f" {' and '.join(found) or 'none of them'}"
            )
        if self.files is not None and (self.installed_packages or 0 in self.files[2:]):
            raise ValueError("`files` is [stop], [start, stop] or [start, stop, step] of files")
        return self

    @property
    def profile(self) -> Profile:
        return self.quality or ("prose" if self.installed_packages else "web")

    @property
    def chosen(self) -> slice:
        """Which of its files are read."""
        return slice(*self.files) if self.files else slice(None)
