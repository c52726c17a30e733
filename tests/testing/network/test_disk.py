"""A disk loses at most what was not synced, and then only as POSIX allows."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketStream

from mtaio.testing import Network, Victim, explore, settle
from mtaio.testing._network._storage import SECTOR, Storage

SEEDS = 60


def made(seed: int, dead: Callable[[], bool] = lambda: False) -> Storage:
    """Return a disk that chooses by ``seed``."""
    return Storage("db", Random(seed), dead)  # noqa: S311 - which state survives, not a secret


def fsync_directory(path: Path) -> None:
    """Sync what names there are in a directory."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write(path: Path, content: str, *, sync: bool = False) -> None:
    """Write a file anew."""
    with path.open("w") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def after_power_cuts(
    program: Callable[[Path], object], prepare: Callable[[Path], object] | None = None
) -> set[tuple[tuple[str, str], ...]]:
    """Return what the disk holds after a power cut, over many seeds: names and contents."""
    found: set[tuple[tuple[str, str], ...]] = set()
    for seed in range(SEEDS):
        disk = made(seed)
        try:
            if prepare is not None:
                prepare(disk.path)
                disk.sync()
            program(disk.path)
            disk.crash()
            found.add(held(disk.path))
        finally:
            disk.close()
    return found


def held(path: Path) -> tuple[tuple[str, str], ...]:
    """Return all files below a directory, with what they hold."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return tuple((str(file.relative_to(path)), file.read_text()) for file in files)


@pytest.fixture
def disk() -> Iterator[Storage]:
    """A disk that goes with the test."""
    disk = made(7)
    yield disk
    disk.close()


# ---- files ---------------------------------------------------------------------------------------


def test_synced_file_in_synced_directory_survives() -> None:
    """What was synced, and whose directory was, is there after each power cut."""

    def program(path: Path) -> None:
        write(path / "a", "synced", sync=True)
        fsync_directory(path)

    assert after_power_cuts(program) == {(("a", "synced"),)}


def test_unsynced_bytes_are_lost_torn_or_kept() -> None:
    """Of bytes that were added and not synced there can be none, any first part, or all."""

    def program(path: Path) -> None:
        with (path / "a").open("a") as file:
            file.write("5678")

    contents = after_power_cuts(program, lambda path: write(path / "a", "1234"))
    assert contents == {(("a", "12345678"[:end]),) for end in range(4, 9)}


def test_sync_covers_what_was_written_before_it_alone() -> None:
    """A sync keeps what was written before it, and nothing of what was written after."""

    def program(path: Path) -> None:
        with (path / "a").open("a") as file:
            for part in "xy":
                file.write(part)
                file.flush()
                if part == "x":
                    os.fdatasync(file)

    assert after_power_cuts(program, lambda path: write(path / "a", "")) == {
        (("a", "x"),),
        (("a", "xy"),),
    }


def test_overwritten_sectors_are_old_or_new() -> None:
    """Of bytes that were overwritten, each sector is as it was or as it is now."""

    def program(path: Path) -> None:
        with (path / "a").open("r+") as file:
            file.write("b" * 2 * SECTOR)

    contents = after_power_cuts(program, lambda path: write(path / "a", "a" * 2 * SECTOR))
    assert contents == {(("a", x * SECTOR + y * SECTOR),) for x in "ab" for y in "ab"}


def test_file_opened_to_be_written_anew_can_be_empty() -> None:
    """Opening with "w" truncates: the old bytes, none, a part of the new, or all are there."""
    contents = after_power_cuts(
        lambda path: write(path / "a", "new"), lambda path: write(path / "a", "old!")
    )
    assert contents == {(("a", content),) for content in ("old!", "", "n", "ne", "new")}


def test_what_is_shorter_now_has_no_more_than_it_had() -> None:
    """A file that was cut is as long as before or as now."""

    def program(path: Path) -> None:
        os.truncate(path / "a", 2)

    contents = after_power_cuts(program, lambda path: write(path / "a", "1234"))
    assert contents == {(("a", "1234"),), (("a", "12"),)}


# ---- directories ---------------------------------------------------------------------------------


def test_new_name_may_be_lost_though_the_file_was_synced() -> None:
    """To sync a file does not sync its name."""
    contents = after_power_cuts(lambda path: write(path / "a", "synced", sync=True))
    assert contents == {(), (("a", "synced"),)}


def replace(path: Path, *, sync: bool = True) -> None:
    """Replace a file as one should, but for the sync of the directory."""
    write(path / "new", "new", sync=sync)
    (path / "new").replace(path / "a")


def test_replacing_without_sync_of_the_directory_may_be_lost() -> None:
    """The name may lead to the old file, and the new one may be there under its first name."""
    contents = after_power_cuts(replace, lambda path: write(path / "a", "old"))
    assert contents == {
        (("a", "old"),),
        (("a", "old"), ("new", "new")),
        (("a", "new"),),
    }


def test_replacing_without_sync_of_the_file_may_leave_it_empty() -> None:
    """What the name leads to is the old file, or the new one with any part of its bytes."""

    def program(path: Path) -> None:
        replace(path, sync=False)
        fsync_directory(path)

    contents = after_power_cuts(program, lambda path: write(path / "a", "old"))
    assert contents == {(("a", content),) for content in ("", "n", "ne", "new")}


def test_replacing_with_all_syncs_is_safe() -> None:
    """The file synced before, the directory after: the new file is there."""

    def program(path: Path) -> None:
        replace(path)
        fsync_directory(path)

    assert after_power_cuts(program, lambda path: write(path / "a", "old")) == {(("a", "new"),)}


def test_removed_file_may_come_back_as_it_was_synced() -> None:
    """A removal without sync of the directory may be lost, and the file has its synced bytes."""
    contents = after_power_cuts(
        lambda path: (path / "a").unlink(), lambda path: write(path / "a", "old")
    )
    assert contents == {(), (("a", "old"),)}


def test_number_of_a_removed_inode_used_again_brings_no_bytes_back() -> None:
    """A new file has nothing of a removed one, though file systems use the inode's number again."""

    def program(path: Path) -> None:
        (path / "a").unlink()
        write(path / "b", "new")
        fsync_directory(path)

    contents = after_power_cuts(program, lambda path: write(path / "a", "old"))
    assert contents == {(("b", content),) for content in ("", "n", "ne", "new")}


def test_names_are_lost_the_latest_first() -> None:
    """If a name is there, those that were made before it are there as well."""

    def program(path: Path) -> None:
        for name in "abc":
            write(path / name, "", sync=True)

    names = {tuple(name for name, _ in held) for held in after_power_cuts(program)}
    assert names == {(), ("a",), ("a", "b"), ("a", "b", "c")}


def test_each_directory_is_synced_for_itself() -> None:
    """A new directory needs a sync of its own and one of the directory that it is in."""

    def program(path: Path) -> None:
        (path / "in").mkdir()
        write(path / "in" / "a", "x", sync=True)
        fsync_directory(path)

    def twice(path: Path) -> None:
        program(path)
        fsync_directory(path / "in")

    def inner(path: Path) -> None:
        (path / "in").mkdir()
        write(path / "in" / "a", "x", sync=True)
        fsync_directory(path / "in")

    assert after_power_cuts(program) == {(), (("in/a", "x"),)}
    assert after_power_cuts(twice) == {(("in/a", "x"),)}
    assert after_power_cuts(inner) == {(), (("in/a", "x"),)}


def test_synced_files_move_with_their_directory() -> None:
    """A directory that is renamed has what was synced in it, under whichever name survives."""

    def prepare(path: Path) -> None:
        (path / "old").mkdir()
        write(path / "old" / "a", "x")

    contents = after_power_cuts(lambda path: (path / "old").rename(path / "new"), prepare)
    assert contents == {(("old/a", "x"),), (("new/a", "x"),)}


def test_links_survive_as_links(disk: Storage) -> None:
    """Two names of one file lead to one file afterwards; a symbolic link leads where it led."""
    write(disk.path / "a", "x")
    (disk.path / "b").hardlink_to(disk.path / "a")
    (disk.path / "c").symlink_to("a")
    (disk.path / "d").symlink_to("nowhere")
    (disk.path / "a").chmod(0o600)
    disk.sync()
    disk.crash()
    assert (disk.path / "a").samefile(disk.path / "b")
    assert (disk.path / "c").readlink() == Path("a")
    assert (disk.path / "d").readlink() == Path("nowhere")
    assert (disk.path / "a").stat().st_mode & 0o777 == 0o600
    assert disk.lost == ()


def test_removed_tree_is_there_or_gone() -> None:
    """What `shutil.rmtree` has removed is lost, or comes back with all that was synced."""

    def prepare(path: Path) -> None:
        (path / "in").mkdir()
        write(path / "in" / "a", "x")

    contents = after_power_cuts(lambda path: shutil.rmtree(path / "in"), prepare)
    assert (("in/a", "x"),) in contents
    assert () in contents


# ---- power and processes -------------------------------------------------------------------------


def test_lost_has_what_the_power_cut_changed() -> None:
    """A test can ask what a power cut has changed, and so whether it could do harm."""
    lost: set[tuple[str, ...]] = set()
    for seed in range(SEEDS):
        disk = made(seed)
        write(disk.path / "a", "x", sync=True)
        disk.sync()
        write(disk.path / "b", "y")
        disk.crash()
        lost.add(disk.lost)
        disk.crash()
        assert disk.lost == ()
        disk.close()
    assert lost == {(), ("b",)}


def test_same_seed_loses_the_same() -> None:
    """The choices are those of the random numbers that the disk was given."""

    def run(seed: int) -> list[tuple[tuple[str, str], ...]]:
        disk = made(seed)
        states: list[tuple[tuple[str, str], ...]] = []
        for number in range(8):
            for name in "abc":
                write(disk.path / name, str(number) * 9)
            disk.crash()
            states.append(held(disk.path))
        disk.close()
        return states

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_open_file_of_a_dead_program_writes_to_nowhere(disk: Storage) -> None:
    """What clean-up still writes to a file that was open at the power cut is lost; so at a kill."""
    for cut in (disk.crash, disk.detach):
        write(disk.path / "a", "1")
        disk.sync()
        with (disk.path / "a").open("a") as file:
            file.write("2")
            cut()
            file.flush()
            os.fsync(file.fileno())
        assert (disk.path / "a").read_text() == "1"


def test_kill_keeps_what_was_written_and_a_later_power_cut_may_lose_it() -> None:
    """The kernel survives the process: unsynced bytes stay, and remain unsynced."""

    def program(path: Path) -> None:
        write(path / "a", "new")

    kept: set[str] = set()
    for seed in range(SEEDS):
        disk = made(seed)
        write(disk.path / "a", "old")
        write(disk.path / "b", "gone")
        disk.sync()
        program(disk.path)
        (disk.path / "b").unlink()
        disk.detach()
        assert held(disk.path) == (("a", "new"),)
        disk.crash()
        kept.add((disk.path / "a").read_text() + "+" * (disk.path / "b").exists())
        disk.close()
    assert kept == {a + b for a in ("old", "", "n", "ne", "new") for b in ("", "+")}


def test_dead_program_cannot_change_the_disk() -> None:
    """What a killed program does in its clean-up fails as on a broken disk."""
    dead = False
    disk = made(1, lambda: dead)
    write(disk.path / "a", "x")
    dead = True
    changes: list[Callable[[], object]] = [
        lambda: (disk.path / "a").write_text("y"),
        lambda: (disk.path / "b").open("x"),
        lambda: (disk.path / "a").rename(disk.path / "b"),
        (disk.path / "a").unlink,
        (disk.path / "c").mkdir,
        lambda: (disk.path / "c").symlink_to("a"),
    ]
    for change in changes:
        with pytest.raises(OSError, match="the program was killed"):
            change()
    assert held(disk.path) == (("a", "x"),)
    dead = False
    disk.close()


async def test_worker_threads_sync_too(disk: Storage) -> None:
    """Files that AnyIO opens in its threads are files of the disk."""
    async with await anyio.open_file(disk.path / "a", "w") as file:
        await file.write("x")
        await file.flush()
        await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
    await anyio.to_thread.run_sync(fsync_directory, disk.path)
    disk.crash()
    assert held(disk.path) == (("a", "x"),)


# ---- what is not seen ----------------------------------------------------------------------------


def test_sqlite_is_refused_at_a_power_cut(disk: Storage) -> None:
    """SQLite would be accused of losing commits; its files survive the kill of a process."""
    connection = sqlite3.connect(disk.path / "db.sqlite")
    connection.execute("CREATE TABLE stock (item TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(RuntimeError, match=r"^cannot cut the power with \['db.sqlite'\]"):
        disk.crash()
    disk.detach()
    assert (disk.path / "db.sqlite").exists()


def test_files_that_sync_each_write_are_refused(disk: Storage) -> None:
    """O_DSYNC and O_SYNC sync without a call that could be seen."""
    for flag in (os.O_DSYNC, os.O_SYNC):
        with pytest.raises(OSError, match="what O_DSYNC syncs is not seen"):
            os.open(disk.path / "a", os.O_WRONLY | os.O_CREAT | flag)


def test_other_files_are_synced_for_real(disk: Storage, tmp_path: Path) -> None:
    """Files elsewhere are none of the disk's business; a wrong descriptor is still one."""
    write(tmp_path / "a", "x", sync=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fsync(99_999)
    assert held(disk.path) == ()


def test_end_restores_all() -> None:
    """With the last disk, the directory and what was replaced in `os` are gone."""
    before = os.fsync, os.fdatasync
    first, second = made(1), made(2)
    assert os.fsync is not before[0]
    first.close()
    first.close()
    assert os.fsync is not before[0]
    second.close()
    assert (os.fsync, os.fdatasync) == before
    assert not first.path.parent.exists()
    assert not second.path.parent.exists()


def test_names_that_were_imported_before_are_seen() -> None:
    """A program that has `replace` from `os` is watched as well; one that has `fsync` is not."""
    program = (
        "from os import replace\n"
        "import random, sys\n"
        "from mtaio.testing._network._storage import Storage\n"
        "states = set()\n"
        "for seed in range(40):\n"
        "    disk = Storage('db', random.Random(seed))\n"
        "    (disk.path / 'a').write_text('')\n"
        "    replace(disk.path / 'a', disk.path / 'b')\n"
        "    disk.crash()\n"
        "    states.add(tuple(sorted(path.name for path in disk.path.iterdir())))\n"
        "    disk.close()\n"
        "print(sorted(states))\n"
    )
    answer = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "[(), ('a',), ('b',)]"


# ---- on a host -----------------------------------------------------------------------------------


class Journal:
    """Lines in a file; each is promised once `add` has returned."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.file = path.open("ab")
        self.sync = sync
        if sync:
            fsync_directory(path.parent)

    async def add(self, line: bytes) -> None:
        """Add a line, with its length before it, so that a torn one is recognised."""
        self.file.write(b"%d:%b\n" % (len(line), line))
        await anyio.sleep(1)
        self.file.flush()
        if self.sync:
            os.fsync(self.file.fileno())
        await anyio.sleep(1)


def lines_of(path: Path) -> list[bytes]:
    """Return the whole lines, up to the first that is torn."""
    lines: list[bytes] = []
    with suppress(ValueError, FileNotFoundError):
        for record in path.read_bytes().splitlines(keepends=True):
            size, line = record.split(b":", 1)
            if len(line) != int(size) + 1:
                break
            lines.append(line[:-1])
    return lines


async def broken_promises(*, sync: bool, silent: bool, when: float, seed: int) -> int:
    """Kill a host that writes a journal, restart it, and count what was promised and is gone."""
    promised: list[bytes] = []

    async def program(path: Path) -> None:
        known = lines_of(path / "journal")
        journal = Journal(path / "journal", sync=sync)
        with journal.file:
            for number in range(len(known), len(known) + 3):
                line = b"line %d" % number
                await journal.add(line)
                promised.append(line)

    async with Network(seed=seed) as net:
        host = net.host("db")
        host.start(program, host.disk.path)
        await anyio.sleep(when)
        host.kill(silent=silent)
        found = lines_of(host.disk.path / "journal")
        assert found == [b"line %d" % number for number in range(len(found))]
        broken = len(set(promised) - set(found))
        host.restart()
        await anyio.sleep(0.5)
        assert lines_of(host.disk.path / "journal") == found  # what the dead one flushes is lost
    return broken


@pytest.mark.parametrize(("sync", "silent"), [(True, True), (False, True), (False, False)])
async def test_journal_is_cut_at_every_moment(*, sync: bool, silent: bool) -> None:
    """A journal that syncs keeps each promise, as does one that does not if its process is killed.

    If power is cut, one that does not sync breaks some.
    """
    broken = 0
    for half in range(12):
        for seed in range(4):
            broken += await broken_promises(sync=sync, silent=silent, when=half / 2, seed=seed)
    assert (broken > 0) is (silent and not sync)


async def keep(folder: Path) -> None:
    """Write down what each client sends, and confirm it."""
    with (folder / "journal").open("ab") as journal:
        fsync_directory(folder)

        async def serve(stream: SocketStream) -> None:
            async with stream:
                async for line in stream:
                    journal.write(line)
                    journal.flush()
                    os.fsync(journal.fileno())
                    await stream.send(b"ok")

        listener = await anyio.create_tcp_listener(local_port=80)
        async with listener:
            await listener.serve(serve)


@explore(seeds=20, exhaustive=1, inject=["step"])
async def test_power_cut_at_every_step_breaks_no_promise(victim: Victim) -> None:
    """Whichever step of a client and a server is the last, what was confirmed is on the disk."""
    confirmed: list[bytes] = []

    async def client() -> None:
        await settle()
        async with await anyio.connect_tcp("db", 80) as stream:
            for number in range(2):
                line = b"line %d\n" % number
                await stream.send(line)
                assert await stream.receive() == b"ok"
                confirmed.append(line)

    async with Network(latency=0.01, seed=victim.at) as net:
        host = net.host("db")
        host.start(keep, host.disk.path)
        await victim(client)
        host.kill(silent=True)
        journal = host.disk.path / "journal"
        found = journal.read_bytes() if journal.exists() else b""
        assert found.startswith(b"".join(confirmed))
        assert b"line 0\nline 1\n".startswith(found)


async def test_disk_goes_with_the_network() -> None:
    """A disk is made when it is asked for, is of its host alone, and is removed at the end."""
    net = Network()
    with pytest.raises(RuntimeError, match=r"^host 'db' has no disk while its network is not open"):
        _ = net.host("db").disk
    async with net:
        one, other = net.host("db").disk, net.host("other").disk
        assert one is net.host("db").disk
        assert one.path != other.path
        assert repr(one) == f"<Disk {str(one.path)!r}>"
        write(one.path / "a", "x")
    assert not one.path.exists()
    assert not other.path.exists()
    assert net.host("db").disk is one


async def test_clean_up_of_a_killed_program_does_not_reach_the_disk() -> None:
    """What `finally` does by name fails, and the host's next program finds what there was."""
    errors: list[OSError] = []

    async def program(path: Path) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                (path / "state").write_text("stopped")
            except OSError as error:
                errors.append(error)
                raise

    async with Network() as net:
        host = net.host("db")
        write(host.disk.path / "state", "running")
        host.start(program, host.disk.path)
        await anyio.sleep(1)
        host.kill()
        await anyio.sleep(1)
        assert [error.strerror for error in errors] == ["the program was killed"]
        assert held(host.disk.path) == (("state", "running"),)


def test_moved_directory_is_in_one_place() -> None:
    """A directory that was moved, and whose new place alone was synced, is not there twice."""

    def prepare(path: Path) -> None:
        (path / "old" / "moved").mkdir(parents=True)
        (path / "new").mkdir()
        write(path / "old" / "moved" / "a", "x")

    def program(path: Path) -> None:
        (path / "old" / "moved").rename(path / "new" / "moved")
        fsync_directory(path / "new")

    found = after_power_cuts(program, prepare)
    assert found <= {(("old/moved/a", "x"),), (("new/moved/a", "x"),)}
    assert (("new/moved/a", "x"),) in found


def test_what_is_no_file_is_left_alone(disk: Storage, tmp_path: Path) -> None:
    """A pipe with a name is no part of it, and a sync of a file elsewhere changes nothing."""
    os.mkfifo(disk.path / "pipe")
    write(disk.path / "a", "x", sync=True)
    write(tmp_path / "elsewhere", "x", sync=True)
    fsync_directory(disk.path)
    disk.crash()
    assert held(disk.path) == (("a", "x"),)


def test_a_file_without_a_name_is_synced_in_vain(disk: Storage) -> None:
    """One that was removed while it is open is not there after a power cut, synced or not."""
    with (disk.path / "a").open("w") as file:
        file.write("x")
        (disk.path / "a").unlink()
        fsync_directory(disk.path)
        write(disk.path / "b", "y", sync=True)
        fsync_directory(disk.path)
        file.flush()
        os.fsync(file.fileno())
    disk.crash()
    assert held(disk.path) == (("b", "y"),)
