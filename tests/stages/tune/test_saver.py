"""Saving in the background: what a kill at any moment leaves, what is kept, and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.folder import Folder
from stages.tune.checkpoint import discard_after, find_checkpoints
from stages.tune.saver import Saver
from tests.dist.ranks import forks
from tests.stages.text.servers import GoogleServer
from tests.stages.tune.saving import check, save_for_ever, share


def _kill_while_saving(url: str, staging: Path, kills: int, longest_s: float, seed: int) -> int:
    """Kill both ranks at random moments; after each, the newest checkpoint must be whole and no
    older than before. How many checkpoints were completed between kills.
    """
    draw, deaths = random.Random(seed), 0
    processes = forks()
    before, completed = 0, 0
    for number in range(kills):
        ranks = [
            processes.Process(
                target=save_for_ever,
                args=(url, staging, rank, f"{number:08x}", before + 1, dict(os.environ)),
            )
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        deadline = time.monotonic() + 300
        if number % 4 == 0:  # see to it that there is progress to lose
            while not _newer(url, staging, before) and time.monotonic() < deadline:
                assert all(process.exitcode is None for process in ranks), "a rank ended by itself"
                time.sleep(0.02)
        time.sleep(draw.uniform(0.0, longest_s))
        for process in draw.sample(ranks, 2):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGKILL)
        for process in ranks:
            process.join()
            deaths += process.exitcode == -signal.SIGKILL
        found = find_checkpoints(Folder(url, staging))
        if found:
            check(found[-1])
            completed += found[-1].step > before
            assert found[-1].step >= before, "a complete checkpoint was lost"
            before = found[-1].step
        discard_after(Folder(url, staging), before)
    assert deaths == 2 * kills
    savers = [Saver(Folder(url, staging), "after", rank, 2, last=2) for rank in range(2)]
    for rank in (1, 0):
        savers[rank].save(before + 1, share(before + 1, rank), {})
    for saver in savers:
        saver.wait()
    assert len(find_checkpoints(Folder(url, staging))) == 2, "what kills left goes with a save"
    print(f"{kills} kills of both ranks, {completed} times after a newer checkpoint: {url}")
    return completed


def _newer(url: str, staging: Path, step: int) -> bool:
    return any(c.step > step for c in find_checkpoints(Folder(url, staging)))


def test_the_latest_is_readable_after_every_kill(tmp_path: Path) -> None:
    assert _kill_while_saving(str(tmp_path / "c"), tmp_path / "s", 12, 0.06, seed=1) >= 3


@pytest.mark.chaos
def test_the_latest_is_readable_after_two_hundred_kills(tmp_path: Path) -> None:
    assert _kill_while_saving(str(tmp_path / "c"), tmp_path / "s", 200, 0.12, seed=2) >= 50


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket of a server on this machine."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    server = server_of(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import fsspec
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # another test's server may be remembered
    name = f"training-{uuid.uuid4().hex[:8]}"  # servers of one process share what they hold
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    yield f"s3://{name}"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def google_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of Google Cloud Storage on a server on this machine."""
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    with GoogleServer("training").running() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield "gs://training"


@pytest.mark.parametrize("place", ["bucket", "google_bucket"])
def test_object_stores_save_load_and_keep_as_a_folder_does(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bucket = request.getfixturevalue(place)
    root = Folder(f"{bucket}/runs/checkpoints", tmp_path / "staged")
    savers = [Saver(root, "abc", rank, 2, last=2) for rank in range(2)]
    for step in (1, 2, 3):
        for rank in (1, 0):
            savers[rank].save(step, share(step, rank), {"tokens": step})
    for saver in savers:
        saver.wait()
    assert [c.step for c in find_checkpoints(root)] == [2, 3]
    check(find_checkpoints(root)[-1])
    discard_after(root, 2)
    assert [c.step for c in find_checkpoints(root)] == [2]
    assert {name.split("/")[0] for name in root.names("*/*")} == {"step-00000002-abc"}


@pytest.mark.chaos
def test_s3_is_readable_after_every_kill(bucket: str, tmp_path: Path) -> None:
    assert _kill_while_saving(f"{bucket}/c", tmp_path / "s", 200, 0.3, seed=3) >= 40


def test_what_is_kept(tmp_path: Path) -> None:
    saver = Saver(Folder(tmp_path), "abc", rank=0, world=1, last=2, every=4)
    for step in range(1, 11):
        saver.save(step, share(step, 0, 1), {}, pinned=(3,))
    saver.wait()
    assert [c.step for c in find_checkpoints(tmp_path)] == [3, 4, 8, 9, 10]


def test_a_late_checkpoint_is_kept_for_the_step_it_stands_for(tmp_path: Path) -> None:
    saver = Saver(Folder(tmp_path), "abc", rank=0, world=1, last=1, every=4)
    for step, due in ((2, 2), (5, 4), (6, 6), (8, 8), (10, 10)):
        saver.save(step, share(step, 0, 1), {"due": due})
    saver.wait()
    assert [c.step for c in find_checkpoints(tmp_path)] == [5, 8, 10]


def test_a_damaged_or_lost_shard_is_found_by_its_hash(tmp_path: Path) -> None:
    saver = Saver(Folder(tmp_path), "abc", rank=0, world=1)
    saver.save(1, share(1, 0, 1), {})
    saver.wait()
    (checkpoint,) = find_checkpoints(tmp_path)
    shard = tmp_path / checkpoint.name / "weights-00-of-01.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1  # one bit
    shard.write_bytes(data)
    assert "has sha256" in next(checkpoint.faults())
    shard.write_bytes(data[:-1])
    assert f"has {len(data) - 1} bytes, expected {len(data)}" in next(checkpoint.faults())
    shard.unlink()
    assert "is missing" in next(checkpoint.faults())


def test_a_store_without_space_is_told_at_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stages.tune.saver as module

    def full(*_: object, **__: object) -> None:
        with open("/dev/full", "w") as file:
            file.write("more")

    saver = Saver(Folder(tmp_path), "abc", rank=0, world=1)
    saver.save(1, share(1, 0, 1), {})
    saver.wait()
    write, writes = module.save_file, []

    def half(tensors: object, path: Path, **options: object) -> None:
        """The weights' shard fits, of the optimizer's a part."""
        writes.append(path)
        write(tensors, path, **options)  # type: ignore[arg-type]
        if len(writes) == 2:
            full()

    monkeypatch.setattr(module, "save_file", half)
    saver.save(2, share(2, 0, 1), {})
    with pytest.raises(UserError, match=r"no space left in .*keep fewer"):
        saver.save(3, share(3, 0, 1), {})
    assert len(writes) == 2
    check(find_checkpoints(tmp_path)[-1])
    assert len(list(tmp_path.iterdir())) == 1, "what the failed one took is free again"


def test_a_rank_without_space_leaves_the_others_shards_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may still be written; without them those ranks would raise another error than this."""
    import stages.tune.saver as module

    saver = Saver(Folder(tmp_path), "abc", rank=1, world=2)
    other = Saver(Folder(tmp_path), "abc", rank=0, world=2)
    folder = Folder(tmp_path / "step-00000001-abc")
    other._write(folder, share(1, 0, 2))
    before = folder.names("*")

    def full(path: Path) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "file_sha256", full)
    saver.save(1, share(1, 1, 2), {})
    with pytest.raises(UserError, match="no space left in"):
        saver.wait()
    assert folder.names("*") == before


def test_saving_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stages.tune.saver as module

    written: list[float] = []
    write = module.save_file

    def slow(*arguments: object, **options: object) -> None:
        time.sleep(0.3)
        write(*arguments, **options)  # type: ignore[arg-type]
        written.append(time.monotonic())

    monkeypatch.setattr(module, "save_file", slow)
    saver = Saver(Folder(tmp_path), "abc", rank=0, world=1)
    saver.save(1, share(1, 0, 1), {})
    assert not written, "save returned before anything was on the disk"
    assert find_checkpoints(tmp_path) == []
    saver.wait()
    assert [c.step for c in find_checkpoints(tmp_path)] == [1]
