"""`raylm trace`: from a token of a training batch back to the crawl record it was read from.

A batch is a pure function of seed, step and what the run skipped, so the place of a token is
arithmetic; the shards name its document and the corpus's file that holds it, and the document says
where its record lies and which steps let it pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.storage import Store
from stages.pretrain import Config
from stages.pretrain.data import TrainingSet
from stages.text.documents import Document, document_files, find_document


@dataclass(frozen=True)
class Trace:
    """What is known of one token."""

    document: Document
    token: int
    """Its position among the document's tokens."""
    corpus: str
    file: str
    archive: str
    """The archive's path where it is still there, else what the corpus called it."""

    @property
    def passed(self) -> list[str]:
        return self.document.passed.split()


class Tracer:
    """Opens a training run's tokens and corpus once, and traces tokens in them."""

    def __init__(self, store: Store, run: Artifact) -> None:
        self.store = store
        tokens = self._parents(run, "tokens")
        self.config = Config.model_validate(run.manifest.config)
        self.skips = run.metrics.get("skips", [])
        self.corpora = [self._parents(artifact, "corpus")[0] for artifact in tokens]
        folders = [artifact.file("train") for artifact in tokens]
        named = dict(zip(self.config.tokens_names, folders, strict=True))
        self.data = TrainingSet(self.config, named, run.manifest.seed)

    def trace(self, step: int, row: int, position: int) -> Trace:
        """The token at one position of one row of one step; a place outside is a UserError."""
        config = self.config
        bounds = (("step", step, config.steps), ("row", row, config.rows),
                  ("position", position, config.sequence_length))  # fmt: skip
        for name, value, end in bounds:
            if not 0 <= value < end:
                raise UserError(f"{name} is {value}; this run has {name}s 0 to {end - 1}")
        part, place = self.data.locate(step, row, position, self.skips)
        corpus = self.corpora[part]
        document = self._find(corpus, place.document_id, place.origin)
        archive = self._archive(corpus, document.source)
        return Trace(document, place.token, corpus.id, place.origin, archive)

    def _find(self, corpus: Artifact, document_id: str, file: str) -> Document:
        files = [corpus.file(file)] if file else document_files(corpus.path)
        for path in files:
            document = find_document(path, document_id)
            if document is not None:
                return document
        raise UserError(
            f"corpus {corpus.id} holds no document {document_id}: it is not the corpus that "
            "these tokens were made of"
        )

    def _parents(self, artifact: Artifact, field: str) -> list[Artifact]:
        named = artifact.manifest.parents.get(field)
        if not named:
            raise UserError(
                f"{artifact.id} has no {field!r} among its parents; a trace needs a pretraining "
                "run, whose tokens and corpus are still in the store"
            )
        return [self.store.get(name) for name in named]

    def _archive(self, corpus: Artifact, source: str) -> str:
        """Where the corpus's stage read a source's file."""
        name, _, rest = source.partition("/")
        manifest = corpus.manifest
        crawls = manifest.parents.get("crawls", [])
        if name.startswith("crawl") and name[5:].isdigit() and int(name[5:]) < len(crawls):
            crawl = crawls[int(name[5:])]
            return str(self.store.get(crawl).path / rest) if self.store.has(crawl) else source
        return _source_path(manifest.config.get("sources", []), name, rest) or source


def _source_path(sources: Sequence[Mapping[str, Any]], name: str, rest: str) -> str | None:
    """The path below the source of that name, if it is a path and still there."""
    for source in sources:
        path = Path(source["path"]) if source.get("path") else None
        if path is None or not path.exists():
            continue
        if name in (source.get("name"), path.name, "file"):
            found = path / rest if path.is_dir() else path
            if found.exists():
                return str(found)
    return None
