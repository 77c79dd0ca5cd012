"""run, retry, backfill: fires that somebody asks for."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer

from cronally.admin.client import Client
from cronally.admin.wire import MAX_BACKFILL, MAX_RETRY, BackfillReply, Fire, RetryReply, to_plain
from cronally.cli import options as o
from cronally.cli.output import (
    FAILED,
    agreed,
    check_terminal,
    err,
    note,
    out,
    out_json,
    report,
    shows_progress,
    warn_of_missing,
)
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "run": """
        cronally run nightly-report
        """,
    "retry": """
        cronally retry nightly-report@2026-11-23T09:00:00Z
        cronally retry --failed --since 2h
        cronally retry --failed --since 2026-11-23T00:00:00Z --schedule nightly-report --yes --json
        """,
    "backfill": """
        cronally backfill nightly-report --from 2026-10-01T00:00 --until 2026-10-31T23:59 --dry-run
        cronally backfill nightly-report --from 2026-11-20T00:00:00Z --until 2026-11-23T12:00:00Z
        cronally backfill every-minute --from 2026-11-22T00:00 --until 2026-11-22T23:59 --max 1440 --yes
        """,
}

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_SHOWN: Final = 20  # fires that are listed; of more, the first and the last
_NAMES_SHOWN: Final = 5


def run_command(
    name: o.Name,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", metavar="TEXT", help="The same key within 24 hours gives the same fire."
        ),
    ] = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Fire a schedule now, paused or not, and print the fire id once the fire is on record."""
    with o.connect(socket) as client:
        fire_id = client.run(name, idempotency_key=idempotency_key)
    if json:
        out_json({"fire_id": fire_id})
    else:
        out(fire_id)


# --- retry --------------------------------------------------------------------------------------------------------


@dataclass
class _Asked:
    """What a retry is about. ids: in the order they are retried. shown: the first of them, as they are now."""

    ids: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    shown: list[Fire] = field(default_factory=list)


def retry_command(
    fire_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIRE-ID", help="Fires, as 'cronally history' and messages name them."),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that were rejected or have expired, since --since.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="INSTANT|DURATION",
            help="With --failed: fire times from there on; 2h is two hours ago, 'yesterday 18:00' is in the shell's zone.",
        ),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", metavar="NAME", help="With --failed: only this schedule's.")
    ] = None,
    yes: Yes = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Send fires again that were rejected, have expired or were skipped, with the same fire id; show them, and ask, first.

    They are due at once, and the schedule's deadline counts from now. What the schedule said then is sent, also if it has changed or
    is removed. Fires that are pending already are left alone; one that was published is refused (exit code 5), and
    then nothing is retried. Skipped fires are retried only by their ids.
    """
    _check_retry(fire_ids, since, schedule, failed=failed)
    check_terminal("'cronally retry' asks before it sends anything", yes=yes)
    with o.connect(socket) as client:
        asked = _failed(client, since, schedule) if failed else _named(client, fire_ids or [])
        if asked.ids and not yes:
            (err if json else out)(_retry_preview(asked))
            if not agreed(f"Retry {_fires(len(asked.ids))}?"):
                err("nothing was retried")
                return FAILED
        done = RetryReply(retried=[], pending=asked.pending)
        with _progress(done, len(asked.ids)) as tell:
            for start in range(0, len(asked.ids), MAX_RETRY):
                reply = client.retry(asked.ids[start : start + MAX_RETRY])
                done.retried.extend(reply.retried)
                done.pending.extend(reply.pending)
                tell()
    if json:
        out_json({"retried": done.retried, "pending": done.pending})
        return 0
    if done.retried:
        report(f"retried {_fires(len(done.retried))}: {_listed(done.retried)}")
    if done.pending:
        report(f"pending already: {_listed(done.pending)}")
    if not done.retried and not done.pending:
        note("no fires were rejected or have expired there")
    return 0


def _check_retry(
    fire_ids: list[str] | None, since: str | None, schedule: str | None, *, failed: bool
) -> None:
    if failed and fire_ids:
        raise UsageError("give fire ids or --failed, not both")
    if not failed and not fire_ids:
        raise UsageError(
            "name the fires to retry ('cronally history' lists them), or take all that failed with --failed --since 2h"
        )
    if failed and since is None:
        raise UsageError("--failed needs --since, such as --since 2h: how far back it goes")
    if not failed and (since is not None or schedule is not None):
        raise UsageError(f"--{'schedule' if since is None else 'since'} belongs to --failed")


def _named(client: Client, fire_ids: Sequence[str]) -> _Asked:
    """Return the fires *fire_ids* as the daemon knows them; what cannot be retried is refused here."""
    asked = _Asked()
    wanted = list(dict.fromkeys(fire_ids))
    for start in range(0, len(wanted), MAX_RETRY):
        reply = client.retry(wanted[start : start + MAX_RETRY], dry_run=True)
        asked.ids += reply.retried
        asked.pending += reply.pending
        asked.shown += reply.fires
    return asked


def _failed(client: Client, since: str | None, schedule: str | None) -> _Asked:
    """Return the fires that were rejected or have expired, oldest first."""
    from cronally.cli.instants import before_now

    assert since is not None
    since = before_now("--since", since)
    asked = _Asked()
    for fires in client.fire_pages(schedule=schedule, state="rejected,expired", since=since):
        asked.ids += [fire.fire_id for fire in fires]
        asked.shown = (asked.shown + fires)[-_SHOWN:]
    warn_of_missing(client.lacks_history)
    asked.ids.reverse()
    asked.shown.reverse()
    return asked


def _retry_preview(asked: _Asked) -> str:
    from cronally.cli.render import fires_table

    names = Counter(id_.partition("@")[0] for id_ in asked.ids)
    shown = ", ".join(f"{name} ({count:,})" for name, count in names.most_common(_NAMES_SHOWN))
    more = "" if len(names) <= _NAMES_SHOWN else f" and {len(names) - _NAMES_SHOWN:,} more schedules"
    lines = [f"{_fires(len(asked.ids))} to retry, of {shown}{more}"]
    if len(asked.ids) <= _SHOWN:
        lines.append(fires_table(asked.shown))
    else:
        lines += [f"the first: {asked.ids[0]}", f"the last:  {asked.ids[-1]}"]
    if asked.pending:
        lines.append(f"pending already, and left alone: {_listed(asked.pending)}")
    return "\n".join(lines)


@contextmanager
def _progress(done: RetryReply, total: int) -> Iterator["_Progress"]:
    """Show how far a retry of more than one slice is, and say so if it is broken off."""
    shown = _Progress(done, total)
    try:
        yield shown
    except CronallyError:
        shown.clear()
        if done.retried:
            err(f"{len(done.retried):,} of {_fires(total)} are retried; run it again for the rest")
        raise
    shown.clear()


class _Progress:
    def __init__(self, done: RetryReply, total: int) -> None:
        self._done = done
        self._total = total
        self._is_shown = total > MAX_RETRY and shows_progress()

    def __call__(self) -> None:
        if self._is_shown:
            sys.stderr.write(f"\r{len(self._done.retried):,} of {self._total:,} retried ")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")


# --- backfill -----------------------------------------------------------------------------------------------------


def backfill_command(
    name: o.Name,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="INSTANT",
            help="The first slot, or before it: 2026-11-01T00:00:00Z, 2d for two days ago, or local time in the schedule's zone.",
        ),
    ],
    until: Annotated[
        str,
        typer.Option("--until", metavar="INSTANT", help="The last slot, or after it; not later than now."),
    ],
    most: Annotated[
        int | None,
        typer.Option(
            "--max", metavar="N", min=1, max=MAX_BACKFILL, help="Allow so many fires. [default: 1000]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be made, and make nothing.")
    ] = False,
    yes: Yes = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Make a fire for each past slot of a schedule's rule, of kind backfill (NAME@TIME+backfill); show them, and ask, first.

    Of the rule as it is now, from --from to --until with both ends, also from before the schedule was made, but within its
    --starts and --ends; a schedule at rest is backfilled, too. They are due at once, go out oldest first, share the quota with all other fires, and
    the schedule's deadline counts from now. Slots that were backfilled before are left alone, so a backfill that was broken off can be run again.
    """
    if not dry_run:
        check_terminal("'cronally backfill' asks before it sends anything", yes=yes)
    with o.connect(socket) as client:

        def ask(*, is_dry_run: bool) -> BackfillReply:
            return client.backfill(name, from_=from_, until=until, most=most, dry_run=is_dry_run)

        reply = ask(is_dry_run=dry_run or not yes)
        if not dry_run and not yes:
            (err if json else out)(_backfill_text(reply, "to make"))
            if reply.backfilled:
                if not agreed(f"Make {_fires(reply.backfilled)}?"):
                    err("nothing was made")
                    return FAILED
                reply = ask(is_dry_run=False)
    if json:
        out_json(to_plain(reply))
    elif dry_run:
        out(_backfill_text(reply, "to make"))
        out("nothing was made (--dry-run)")
    elif yes:
        report(_backfill_text(reply, "made"))
    elif reply.backfilled:
        report(f"made {_fires(reply.backfilled)}")
    return 0


def _backfill_text(reply: BackfillReply, done: str) -> str:
    from cronally.cli.render import local_text

    if reply.first is None or reply.last is None:
        return f"{reply.name} has no slots there"
    slots = "1 slot" if reply.slots == 1 else f"{reply.slots:,} slots"
    lines = [f"{reply.name} has {slots} there; {_fires(reply.backfilled)} {done}"]
    if reply.already:
        lines[0] += f", {reply.already:,} backfilled before"
    if reply.backfilled and reply.backfilled == len(reply.fires):
        lines += [f"  {fire}" for fire in reply.fires]
    elif reply.backfilled:
        ends = (("first", reply.first), ("last", reply.last))
        lines += [f"  the {word:<5} {local_text(slot, reply.tz)}  {slot}" for word, slot in ends]
    return "\n".join(lines)


# --- what both say ------------------------------------------------------------------------------------------------


def _fires(count: int) -> str:
    return "1 fire" if count == 1 else f"{count:,} fires"


def _listed(ids: Sequence[str]) -> str:
    if len(ids) <= _SHOWN:
        return ", ".join(ids)
    return f"{len(ids):,}, from {ids[0]} to {ids[-1]}"
