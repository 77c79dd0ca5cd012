"""The admin socket from outside: synchronous, with the standard library alone, so that commands start fast."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode

from cronally.admin import wire
from cronally.admin.paths import check_path
from cronally.errors import AdminError, DaemonUnreachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_Item = TypeVar("_Item")

ANSWER_S: Final = 30.0  # a change waits for one commit and for the changes before it
BACKUP_S: Final = 3_600.0  # 2 GiB take about 15 s; a slow disk, or a network share, may take much longer
_MOST_PATIENCE: Final = (
    120  # times that a machine may say that others have the schedules now; it waits a little each time
)
LONG_S: Final = 600.0  # an apply of 100,000 schedules takes under 10 s; a slow disk may take longer


class Client:
    """A connection to the daemon at *socket_path*, made on first use.

    Every method raises the error that the daemon gave, as its own class; DaemonUnreachable if nothing answers;
    AdminError if what answers does not do so in time or is no daemon.
    """

    def __init__(
        self,
        socket_path: str,
        *,
        answer_s: float = ANSWER_S,
        trace: Callable[[str], None] = lambda _: None,
        place: str | None = None,
    ) -> None:
        """answer_s: how long to wait for the answer of a call that has no time of its own. trace: told of each call and answer.

        place: what errors call the daemon's place, if not by the path of its socket.
        """
        self.socket_path = check_path(socket_path)
        self._place = socket_path if place is None else place
        self._trace = trace
        self._answer_s = answer_s
        self.lacks_history = False
        self._connection = _UnixConnection(socket_path, timeout=answer_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- calls ------------------------------------------------------------------------------------------------------

    def schedule_pages(self, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield all schedules by name, or those after a name, in pages, as plain JSON values."""
        return self._pages("/v1/schedules", {} if after is None else {"after": after})

    def schedules(self) -> Iterator[wire.SchedulesPage]:
        """Yield all schedules by name, in pages."""
        for page in self.schedule_pages():
            yield wire.from_plain(wire.SchedulesPage, page)

    def schedule(self, name: str, *, fires: int = 3) -> wire.Schedule:
        """Return the schedule *name* with its next *fires* slots. Errors: ScheduleNotFound."""
        return wire.from_plain(wire.Schedule, self._call("GET", _path(name), query={"fires": str(fires)}))

    def put(
        self,
        name: str,
        document: Mapping[str, object],
        *,
        create_only: bool = False,
        if_revision: int | None = None,
    ) -> wire.PutReply:
        """Create or replace a schedule by its document. Errors: UsageError, Conflict, RevisionConflict."""
        headers = {"If-None-Match": "*"} if create_only else {}
        if if_revision is not None:
            headers["If-Match"] = f'"{if_revision}"'
        return wire.from_plain(wire.PutReply, self._call("PUT", _path(name), document, headers=headers))

    def remove(self, name: str, *, drop_pending: bool = False) -> wire.RemoveReply:
        """Remove a schedule. Errors: ScheduleNotFound."""
        query = {"drop_pending": "true"} if drop_pending else {}
        return wire.from_plain(wire.RemoveReply, self._call("DELETE", _path(name), query=query))

    def many(self, action: str, names: Sequence[str], **wish: object) -> Iterator[wire.ManyReply]:
        """Remove, pause or resume schedules, part by part, each whole or not at all on each machine; yield what became of each part.

        action: ``remove``, ``pause`` or ``resume``. wish: until, note, drop_pending, as there. Errors: of a machine that failed, after what
        the others have done.
        """
        left = list(dict.fromkeys(names))
        given = {key: value for key, value in wish.items() if value is not None}
        most, nothing = wire.MAX_AT_ONCE, 0
        while left:
            body = {"action": action, "names": left[:most], **given}
            reply = wire.from_plain(wire.ManyReply, self._call("POST", "/v1/many", body, timeout_s=LONG_S))
            told = {one["name"] for one in (*reply.done, *reply.refused)}
            nothing = 0 if told else nothing + 1
            if nothing > _MOST_PATIENCE:
                raise AdminError(f"the daemon at {self._place} does nothing to them; see its log")
            yield reply
            if reply.error is not None:
                raise wire.error_from_plain(reply.error)
            left = [name for name in left if name not in told]

    def move(self, name: str, new_name: str) -> wire.MoveReply:
        """Give a schedule another name. Errors: ScheduleNotFound, Conflict."""
        return wire.from_plain(wire.MoveReply, self._call("POST", _path(name, "move"), {"to": new_name}))

    def pause(
        self, name: str, *, until: str | None = None, note: str | None = None, drop_pending: bool = False
    ) -> wire.PauseReply:
        """Pause a schedule. until: an instant, or a duration from now; None: until it is resumed."""
        body: dict[str, object] = {"drop_pending": drop_pending}
        body |= {key: value for key, value in (("until", until), ("note", note)) if value is not None}
        return wire.from_plain(wire.PauseReply, self._call("POST", _path(name, "pause"), body))

    def resume(self, name: str) -> wire.Schedule:
        """End a schedule's pause."""
        return wire.from_plain(wire.Schedule, self._call("POST", _path(name, "resume")))

    def run(self, name: str, *, idempotency_key: str | None = None) -> str:
        """Fire a schedule now; return the fire id. The same key within 24 hours gives the same fire."""
        key = os.urandom(16).hex() if idempotency_key is None else idempotency_key
        wire.check_key(key)
        answer = self._call("POST", _path(name, "run"), headers={"Idempotency-Key": key})
        return wire.from_plain(wire.RunReply, answer).fire_id

    def backfill(
        self,
        name: str,
        *,
        from_: str,
        until: str,
        most: int | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> wire.BackfillReply:
        """Make fires for the past slots of a schedule from *from_* to *until*. most: so many at most; None: 1,000."""
        key = os.urandom(16).hex() if idempotency_key is None else idempotency_key
        wire.check_key(key)
        body: dict[str, object] = {"from": from_, "until": until, "dry_run": dry_run}
        body |= {} if most is None else {"max": most}
        answer = self._call(
            "POST", _path(name, "backfill"), body, headers={"Idempotency-Key": key}, timeout_s=LONG_S
        )
        return wire.from_plain(wire.BackfillReply, answer)

    def retry(self, fires: Sequence[str], *, dry_run: bool = False) -> wire.RetryReply:
        """Make the fires with these ids (up to 1,000) pending again, all of them or none."""
        answer = self._call("POST", "/v1/retry", {"fires": fires, "dry_run": dry_run})
        return wire.from_plain(wire.RetryReply, answer)

    def next(self, name: str, *, after: str | None = None, count: int = 10) -> wire.NextReply:
        """Return the next slots of a schedule's rule later than *after* (None: now)."""
        query = {"count": str(count)} | ({} if after is None else {"after": after})
        return wire.from_plain(wire.NextReply, self._call("GET", _path(name, "next"), query=query))

    def why(self, name: str, at: str) -> wire.Why:
        """Return why a schedule has a fire at an instant or has none. at: RFC 3339, or local time in its zone."""
        return wire.from_plain(wire.Why, self._call("GET", _path(name, "why"), query={"at": at}))

    def fires(self, **query: str | None) -> wire.FiresPage:
        """Return journal entries, newest first. query: schedule, state, reason, since, until, before, limit."""
        return wire.from_plain(wire.FiresPage, self._call("GET", "/v1/fires", query=_given(query)))

    def fire_pages(self, *, limit: int | None = None, **query: str | None) -> Iterator[list[wire.Fire]]:
        """Yield journal entries, newest first, in pages, up to *limit*. query: as of ``fires``, without before.

        ``lacks_history`` says afterwards whether older ones are missing.
        """
        self.lacks_history = False

        def ask(before: str | None, most: int) -> tuple[list[wire.Fire], str | None]:
            page = self.fires(**query, before=before, limit=str(most))
            self.lacks_history |= not page.is_complete
            return page.fires, page.next

        return _newest_first(ask, limit)

    def change_pages(self, *, limit: int | None = None, **query: str | None) -> Iterator[list[wire.Change]]:
        """Yield what was done to schedules, newest first, in pages, up to *limit*. query: as of ``audit``, without before."""

        def ask(before: str | None, most: int) -> tuple[list[wire.Change], str | None]:
            page = self.audit(**query, before=before, limit=str(most))
            return page.changes, page.next

        return _newest_first(ask, limit)

    def audit(self, **query: str | None) -> wire.ChangesPage:
        """Return what was done to schedules, newest first. query: schedule, by, action, since, until, before, limit."""
        return wire.from_plain(wire.ChangesPage, self._call("GET", "/v1/audit", query=_given(query)))

    def events(self, **query: str | None) -> Iterator[wire.Fire | int]:
        """Begin to listen; then yield what becomes of fires, and how many were left out whenever we are too slow.

        query: schedule, state, reason. Errors: UsageError, NotReady; AdminError when the daemon goes.
        """
        return (
            wire.from_plain(wire.Fire, data) if kind == "fire" else int(data["count"])
            for kind, data in self._stream("/v1/events", _given(query))
        )

    def forecast(self) -> wire.Forecast:
        """Return how many messages will be due in each minute of the coming day."""
        return wire.from_plain(wire.Forecast, self._call("GET", "/v1/forecast", timeout_s=LONG_S))

    def status(self) -> wire.Status:
        """Return how the daemon is."""
        return wire.from_plain(wire.Status, self._call("GET", "/v1/status"))

    def overview(self, *, coming: int = 20) -> wire.Overview:
        """Return what a live view shows, with the next slots of the *coming* schedules that come first."""
        return wire.from_plain(
            wire.Overview, self._call("GET", "/v1/overview", query={"coming": str(coming)})
        )

    def topics(self) -> list[wire.Topic]:
        """Return the topics in use, by ARN."""
        pages = (wire.from_plain(wire.TopicsPage, page) for page in self._pages("/v1/topics", {}))
        return [topic for page in pages for topic in page.topics]

    def apply(
        self,
        chunks: Iterable[bytes],
        *,
        owner: str = "default",
        prune: bool = False,
        dry_run: bool = False,
        sent: Callable[[bytes], None] = lambda _: None,
    ) -> wire.ApplyReply:
        """Stream JSON Lines, in chunks of any size. sent: called with each chunk on its way.

        prune: remove what an earlier apply of the same owner made and these lines do not name. dry_run: only say what would
        be done, with the first differences.
        """

        def body() -> Iterator[bytes]:
            for chunk in chunks:
                if chunk:  # an empty one would end a chunked body
                    yield chunk
                    sent(chunk)

        query = {"owner": owner} | ({"prune": "true"} if prune else {})
        query |= {"dry_run": "true", "differences": str(wire.MAX_DIFFERENCES)} if dry_run else {}
        answer = self._call("POST", "/v1/apply", body(), query=query, timeout_s=LONG_S)
        return wire.from_plain(wire.ApplyReply, answer)

    def backup(self, file: str, *, force: bool = False) -> wire.Copy:
        """Have the daemon write a copy of its store to *file*, an absolute path. Errors: Conflict, BackupFailed, StoreError."""
        body = {"file": file, "force": force}
        return wire.from_plain(wire.Copy, self._call("POST", "/v1/backup", body, timeout_s=BACKUP_S))

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list as plain JSON values."""
        asked = {"limit": str(wire.MAX_PAGE), **query}
        while True:
            page = self._call("GET", path, query=asked)
            yield page
            if page.get("next") is None:
                return
            asked["after"] = page["next"]

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | Iterator[bytes] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        timeout_s = self._answer_s if timeout_s is None else timeout_s
        target = _target(path, query)
        sent = {wire.VERSION_HEADER: str(wire.WIRE_VERSION), **(headers or {})}
        data = _encoded(body)
        self._connect(timeout_s)
        self._trace(f"{method} {target}")
        try:
            with suppress(
                BrokenPipeError, ConnectionResetError
            ):  # refused before all was sent: the answer says why
                if isinstance(data, bytes | None):
                    self._connection.request(method, target, data, sent)
                else:
                    self._connection.request(method, target, data, sent, encode_chunked=True)
            response = self._connection.getresponse()
            status, version, text = (
                response.status,
                response.headers.get(wire.VERSION_HEADER),
                response.read(),
            )
        except TimeoutError:
            self.close()
            raise AdminError(
                f"the daemon at {self._place} did not answer within {timeout_s:.0f} s; look at "
                "'cronally status' and its log before repeating a change"
            ) from None
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise self._gone(
                f"went away before it answered ({_reason(exc)}); when it is back, see with 'cronally show' whether a change was made"
            ) from None
        self._trace(f"{status}, {len(text):,} bytes")
        return self._understood(status, version, text)

    def _stream(self, path: str, query: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        """Ask for a stream of server-sent events; return what yields (event, data) of each."""
        self._connect(ANSWER_S)
        self._trace(f"GET {_target(path, query)}")
        try:
            headers = {wire.VERSION_HEADER: str(wire.WIRE_VERSION)}
            self._connection.request("GET", _target(path, query), headers=headers)
            response = self._connection.getresponse()
            if response.status != 200:
                version = response.headers.get(wire.VERSION_HEADER)
                self._understood(response.status, version, response.read())
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            raise self._gone(f"went away ({_reason(exc)})") from None
        return self._events_of(response)

    def _events_of(self, response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
        event = ""
        try:
            while line := response.readline().decode():
                if line.startswith("event: "):
                    event = line[7:].strip()
                elif line.startswith("data: "):
                    data = json.loads(line[6:])
                    if event == "error":
                        raise wire.error_from_plain(data)
                    yield event, data
        except (OSError, http.client.HTTPException) as exc:
            raise self._gone(f"went away ({_reason(exc)})") from None
        finally:
            self.close()
        raise AdminError(f"the daemon at {self._place} has stopped")

    def _gone(self, how: str) -> AdminError:
        """Return the error that says that the daemon has gone, and *how*."""
        return AdminError(f"the daemon at {self._place} {how}")

    def _connect(self, timeout_s: float) -> None:
        self._connection.timeout = timeout_s
        if self._connection.is_stale():
            self.close()
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
            return
        self._trace(f"connecting to {self._place}")
        try:
            self._connection.connect()
        except OSError as exc:
            self.close()
            raise DaemonUnreachable(self._place, _reason(exc)) from None

    def _understood(self, status: int, version: str | None, text: bytes) -> Any:
        if version is None:
            self.close()
            raise AdminError(
                f"what answers at {self._place} is no cronally daemon; name its socket with --socket or "
                "CRONALLY_SOCKET"
            )
        try:
            plain = json.loads(text)
        except ValueError:
            plain = None
        if isinstance(plain, dict) and isinstance(plain.get("error"), dict) and status >= 400:
            raise wire.error_from_plain(plain["error"])
        wire.check_version(version)
        if not isinstance(plain, dict):
            raise AdminError(f"the daemon at {self._place} gave an answer that is no JSON (status {status})")
        return plain


def _newest_first(
    ask: Callable[[str | None, int], tuple[list[_Item], str | None]], limit: int | None
) -> Iterator[list[_Item]]:
    """Yield pages that are not empty, up to *limit* items. ask: gets where the page before has ended, and the most to return."""
    before: str | None = None
    while True:
        items, before = ask(before, wire.MAX_PAGE if limit is None else min(limit, wire.MAX_PAGE))
        if items:
            yield items
        limit = None if limit is None else limit - len(items)
        if before is None or limit == 0:
            return


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # With a timeout of Python's, a daemon with many at its door would not be waited for: EAGAIN, connect(2).
            seconds, fraction = divmod(self.timeout or 0.0, 1)
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(fraction * 1e6))
            )
            sock.connect(self._path)
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        self.sock = sock

    def is_stale(self) -> bool:
        """Whether the daemon has closed the connection meanwhile: it does not keep idle ones for ever."""
        return self.sock is not None and bool(select.select([self.sock], [], [], 0)[0])


def _path(name: str, action: str | None = None) -> str:
    if not name or name in (".", ".."):
        raise UsageError(f"{name!r} cannot name a schedule; 'cronally ls' lists those there are")
    try:
        quoted = quote(name, safe="")
    except UnicodeEncodeError:
        raise UsageError(f"{name!r} cannot name a schedule: it is not valid UTF-8") from None
    return f"/v1/schedules/{quoted}{f'/{action}' if action else ''}"


def _given(query: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in query.items() if value is not None}


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query, errors='surrogateescape')}" if query else path


def _encoded(body: Mapping[str, object] | Iterator[bytes] | None) -> bytes | Iterator[bytes] | None:
    if body is None or isinstance(body, Iterator):
        return body
    try:
        data = json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UsageError("the text is not valid UTF-8; write it in UTF-8") from None
    if len(data) > wire.MAX_BODY_BYTES:
        raise UsageError(
            f"the schedule takes {len(data):,} bytes and SNS takes messages of at most 262,144; "
            "store the text elsewhere (S3, say) and send where it is"
        )
    return data


def _reason(exc: BaseException) -> str:
    if isinstance(exc, PermissionError):
        return "permission denied: this user is not in the group of the socket or of its directory"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return str(exc).lower() or type(exc).__name__
