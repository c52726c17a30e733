"""
The engine of parfive 2.3, a downloader of many files, on `TaskExecutor`.

What parfive runs by queues of tokens, lists of tasks and a queue with a writer for each file, is a
`stream` over the files here, and a `gather` over the parts of one. What it says about files,
headers, digests and FTP is parfive's.

A plugin of pytest: the nox session ``ports`` runs parfive's own tests on this one, but for those of
`OUTSIDE`.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import parfive.downloader
from parfive.utils import (
    ChecksumMismatch,
    FailedDownload,
    MultiPartDownloadError,
    Token,
    check_file_hash,
    get_filepath,
    get_http_size,
    remove_file,
    session_head_or_get,
    validate_checksum_format,
)

from mtaio import TaskExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

OUTSIDE: Final = {
    # They ask servers on the internet.
    "test_ftp",
    "test_ftp_http",
    "test_ftp_callback_success",
    "test_problematic_http_urls",
}
PREFERRED: Final = {"sha-512": 8, "sha-256": 7, "sha": 3, "md5": 2}
CHUNK: Final = 1024


class Downloader(parfive.downloader.Downloader):  # type: ignore[misc] # not where mypy runs
    """parfive's downloader, whose files and parts are items of an executor."""

    async def run_download(self) -> Any:
        """Get all files that were enqueued; what fails is an error among the results."""
        files = [*self.http_queue, *self.ftp_queue]
        self._init_queues()
        tokens = [Token(number) for number in range(self.config.max_conn, 0, -1)]
        executor = TaskExecutor(self.config.max_conn)
        bar_of_file = self.tqdm if self.config.file_progress else False
        with self._get_main_pb(len(files)) as bar:
            async with self.config.aiohttp_client_session() as session:

                async def get(file: Any) -> Any:
                    token = tokens.pop()  # the line of its bar
                    try:
                        return await file(session, token=token, file_pb=bar_of_file)
                    finally:
                        tokens.append(token)

                def progress(done: int, _: int | None) -> None:
                    if bar:
                        bar.update(done - bar.n)

                results: list[Any] = [None] * len(files)
                try:
                    async with executor.stream(
                        get, files, outcomes=True, on_progress=progress
                    ) as outcomes:
                        async for outcome in outcomes:
                            results[outcome.index] = outcome.error or outcome.value
                except anyio.get_cancelled_exc_class() as error:  # Ctrl-C keeps what is there
                    for index, file in enumerate(files):
                        if results[index] is None:
                            given = file.keywords
                            results[index] = FailedDownload(
                                given["filepath_partial"], given["url"], error
                            )
            return self._format_results(results, bar)

    async def _get_http(  # noqa: C901 - one step after another, as parfive has them
        self,
        session: Any,
        *,
        url: str,
        filepath_partial: Any,
        token: Token,
        overwrite: Any,
        chunksize: int | None = None,
        file_pb: Any = None,
        max_splits: int | None = None,
        checksum: str | bool | None = None,
        **kwargs: Any,
    ) -> tuple[str, str]:
        """Get one file, in parts where the server gives parts; a failed one is removed."""
        path: Path | None = None
        try:
            kwargs["proxy"] = getattr(self.config, f"{urlsplit(url).scheme}_proxy")
            wanted = _wanted(checksum)
            async with session_head_or_get(
                session, url, headers=wanted, timeout=self.config.timeouts, **kwargs
            ) as answer:
                _check(answer, FailedDownload(filepath_partial, url, answer))
                path, there = get_filepath(filepath_partial(answer, url), overwrite)
                told = answer.headers.get("Repr-Digest", answer.headers.get("Content-Digest"))
                if checksum is True:
                    checksum = told
                    if told is None:
                        text = "Expected server to provide checksum for url '%s' but none returned."
                        parfive.log.info(text, url)
                if there and (not isinstance(checksum, str) or _has(path, checksum)):
                    same = ", checksum matches" if isinstance(checksum, str) else ""
                    text = "File %s already exists%s and overwrite is False; skipping download."
                    parfive.log.debug(text, path, same)
                    return url, str(path)
                if isinstance(checksum, str) and told is not None:
                    _agree(path, url, checksum, told)
                size, parts = get_http_size(answer), self._parts(answer, max_splits)
            with self._bar(file_pb, token, path, size) as bar, path.open("wb") as file:

                async def get_part(start: int, headers: dict[str, str]) -> None:
                    async with session.get(
                        url, timeout=self.config.timeouts, headers=headers, **kwargs
                    ) as answer:
                        _check(answer, MultiPartDownloadError(answer))
                        while chunk := await answer.content.read(chunksize or CHUNK):
                            file.seek(start)
                            start += file.write(chunk)
                            if bar is not None:
                                bar.update(len(chunk))

                # Inside an item, the calls of a gather need no slots of their own.
                await TaskExecutor().gather(*[partial(get_part, *part) for part in parts])
            _verify(path, url, checksum)
        except BaseException as error:
            if path is not None:
                remove_file(path)
            for callback in self.config.done_callbacks:
                callback(path, url, error)
            if isinstance(error, Exception):
                raise FailedDownload(filepath_partial, url, error) from error
            raise
        for callback in self.config.done_callbacks:
            callback(path, url, None)
        return url, str(path)

    def _parts(self, answer: Any, most: int | None) -> list[tuple[int, dict[str, str]]]:
        """Return where each part starts, and the headers to ask for it; the last is open."""
        most = most or self.config.max_splits
        size = int(answer.headers.get("Content-length", 0))
        if (
            self.config.env.disable_range
            or not (most and size)
            or answer.headers.get("Accept-Ranges") != "bytes"
        ):
            return [(0, {})]
        starts = range(0, size, max(1, size // most))
        ends = [*starts[1:], ""]
        return [
            (start, {"Range": f"bytes={start}-{end}"})
            for start, end in zip(starts, ends, strict=True)
        ]

    @contextmanager
    def _bar(self, bar: Any, token: Token, path: Path, size: Any) -> Iterator[Any]:
        """Show a bar for one file, where bars are wanted."""
        if not callable(bar):
            yield None
            return
        with bar(
            position=token.n, unit="B", unit_scale=True, desc=path.name, leave=False, total=size
        ) as shown:
            yield shown


def _check(answer: Any, error: Exception) -> None:
    """Raise ``error`` unless a server has answered with success."""
    if not 200 <= answer.status < 300:
        raise error


def _verify(path: Path, url: str, checksum: str | bool | None) -> None:  # noqa: FBT001 - parfive's
    """Raise an error if a file that was fetched has another digest than it ought to."""
    if isinstance(checksum, str) and not _has(path, checksum):
        raise FailedDownload(path, url, ChecksumMismatch("Downloaded checksum doesn't match."))


def _wanted(checksum: str | bool | None) -> dict[str, str]:  # noqa: FBT001 - as above
    """Return the headers that ask for digests; the user's algorithm first."""
    if not checksum:
        return {}
    order = dict(PREFERRED)
    if isinstance(checksum, str):
        order[checksum.split("=")[0]] = 10
    wanted = ", ".join(f"{name}={weight}" for name, weight in order.items())
    return {"Want-Repr-Digest": wanted, "Want-Content-Digest": wanted}


def _has(path: Path, checksum: str) -> bool:
    """Return whether a file has that digest; one that cannot be checked counts as right."""
    with path.open("rb") as file:
        return bool(check_file_hash(file, checksum, accept_invalid_checksum=True))


def _agree(path: Path, url: str, checksum: str, told: str) -> None:
    """Raise an error if the server says that the file will have another digest."""
    try:
        ours, theirs = validate_checksum_format(checksum), validate_checksum_format(told)
    except ValueError as error:
        text = "Failed to compare user checksum to server checksum due to error: %s"
        parfive.log.info(text, error)
        return
    if ours[0] != theirs[0]:
        text = (
            "Not comparing user provided checksum to server provided checksum"
            " as algorithms do not match (got %s from the server)."
        )
        parfive.log.info(text, theirs[0])
    elif ours[1] != theirs[1]:
        text = "Server provided checksum and user provided checksum do not match, download skipped"
        raise FailedDownload(path, url, ChecksumMismatch(text))


parfive.Downloader = parfive.downloader.Downloader = Downloader  # before its tests import it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need the internet."""
    left = [each for each in items if each.name.split("[")[0] in OUTSIDE]
    items[:] = [each for each in items if each not in left]
    config.hook.pytest_deselected(items=left)
