"""`raylm gc`: remove artifacts that no run names or needs, and scratch of no run's trajectory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

from cluster.storage import Store, read_index, read_json


@dataclass
class Freed:
    """What was (or would be) removed: a line each, and bytes together."""

    lines: list[str] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def add(self, what: str, size: int) -> None:
        self.lines.append(f"{what} ({size / 1e6:.1f} MB)")
        self.count += 1
        self.size += size


def sweep(store: Store, dry_run: bool) -> Freed:
    """Remove what no index names, neither directly nor as an ancestor of what it names."""
    freed = Freed()
    with store.lease("raylm gc"):
        kept, work_kept = _kept(store)
        for artifact_id in store.ids():
            if artifact_id not in kept:
                freed.add(artifact_id, store.manifest(artifact_id).size)
                if not dry_run:
                    store.remove(artifact_id)
        for folder in sorted(store.work.glob("*")):
            if folder.is_dir() and folder.name not in work_kept:
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                freed.add(f"work/{folder.name}", size)
                if not dry_run:
                    shutil.rmtree(folder)
    return freed


def _kept(store: Store) -> tuple[set[str], set[str]]:
    """Artifact ids that are named or are ancestors of a named one, and their work folders."""
    ids: set[str] = set()
    folders: set[str] = set()
    for run in store.runs():
        # the scratch of stages that a killed run has not finished yet
        state = read_json(store, f"{run}/run.json")
        folders |= set(state.get("work", ()))
    waiting = [entry["id"] for run in store.runs() for entry in read_index(store, run).values()]
    while waiting:
        current = waiting.pop()
        if current in ids or not store.has(current):
            continue
        ids.add(current)
        manifest = store.manifest(current)
        folders.add(f"{manifest.stage}-{manifest.trajectory}")
        waiting.extend(parent for above in manifest.parents.values() for parent in above)
    return ids, folders
