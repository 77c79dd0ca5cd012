"""The events of the daemon's log: the stable name of each, and what it is about. What is searched and alarmed on is a name, not a sentence."""

from __future__ import annotations

from typing import Any, Final

ACTIONS: Final = {
    "admin.backup": "A copy of the store was written. Fields: file, bytes, by.",
    "admin.bug": "A request met a bug of Cronally; a traceback follows. Fields: method, path.",
    "admin.change": "A schedule was changed, or fires were asked for. Fields: change (put, remove, move, pause, resume, run, backfill, "
    "retry, apply), by, and what it was done to; 'cronally audit' has more.",
    "admin.readers_shut_out": "Members of the group for reading alone cannot reach their socket. Fields: group, directory (the one that is closed to them).",
    "admin.request": "A request was answered; only with -v. Fields: method, path, status.",
    "alerts.unsent": "People could not be told of schedules in trouble; it is tried again. Fields: subject, error.",
    "clock.doubted": "The wall clock cannot be right, and nothing fires until it is. Fields: doubt.",
    "clock.set_back": "The wall clock was set back. Fields: expected, now.",
    "clock.set_forward": "The wall clock was set forward. Fields: expected, now.",
    "clock.suspended": "The machine slept. Fields: slept_s, now.",
    "credentials.unusable": "AWS credentials cannot be had or renewed; fires wait. Fields: error.",
    "daemon.hangs": "A loop of the engine does not go round, so the watchdog of systemd is not told that all is well. Fields: loop, silent_s.",
    "daemon.ready": "It fires schedules and answers commands. Fields: store, socket.",
    "daemon.reload": "A setting differs since SIGHUP. Fields: change, is_applied (false: not before a restart).",
    "daemon.reload_refused": "The settings cannot be read again, and stay as they were. Fields: error.",
    "daemon.reloaded": "The settings have been read again. Fields: changed.",
    "daemon.stand_in": "Messages go to a local stand-in. Fields: url.",
    "inbox.failed": "What another machine asked for could not be carried out or answered; it is told that nobody answers. Fields: error.",
    "journal.pruned": "Entries of the journal went before their time, because the store is as large as it may be; once an hour. "
    "Fields: entries, through.",
    "lease.lost": "This machine sends nothing any more: others may have taken over, or have. It joins anew when the table answers. Fields: reason.",
    "library.message": "A library that Cronally uses has something to say. Fields: logger.",
    "log.dropped": "Lines of the log were dropped, because nobody read it. Fields: count.",
    "machine.joined": "A machine works on the same table from now on. Fields: machine (its id), host.",
    "machine.left": "A machine has stopped in order, and given its shards. Fields: machine, host.",
    "machine.retired": "A machine was silent for its whole lease; the others take its shards. Fields: machine, host.",
    "recovery.done": "What was due while nothing could fire is decided. Fields: reason, after, through, late, skipped.",
    "restore.finished": "A restore that was interrupted is finished. Fields: kept.",
    "service_manager.unreachable": "The service manager cannot be told how the daemon is. Fields: address, error.",
    "shard.given": "This machine lets another one have a shard. Fields: shard.",
    "shard.taken": "This machine drives shards from now on. Fields: shards, of (the host that had them; null: nobody).",
    "sns.no_descriptors": "No file descriptor is left for a connection; once a minute. Fields: host.",
    "sns.throttled": "SNS takes no more messages for now; once a minute for each region. Fields: region, error.",
    "store.on_network": "The store lies on a network file system. Fields: none.",
    "store.recovered": "The store takes commits again. Fields: none.",
    "store.refused": "The store does not take a commit; it is tried again. Once a minute for each reason. Fields: error.",
    "table.answers": "The shared table does again what it is asked. Fields: failed_s.",
    "table.awaited": "This machine is to join the others, and the shared table does not answer. It tries again. Fields: error.",
    "table.unreachable": "The shared table does not answer, or refuses. This machine goes on to the end of its lease, and tries again. Fields: error.",
    "topic.not_allowed": "A topic is not among those that may be published to; what is due there waits. Fields: topic.",
    "topic.recovered": "SNS takes messages for a topic again. Fields: topic, since.",
    "topic.refusing": "SNS refuses everything for a topic; what is due there waits. Fields: topic, error.",
    "zones.changed": "Other time zone data moved next fires. Fields: old, new, count, schedules (the first 20).",
    "zones.instants_moved": "Other time zone data moved the instant of @at schedules. Fields: tzdata, count, schedules (the first 20).",
}
"""What each action says. Fields: what stands beside ``time``, ``level``, ``action`` and ``text`` in a line of JSON."""


def about(action: str, **fields: object) -> dict[str, Any]:
    """Return the ``extra`` of a log record: what happened, and the ids and figures of it; never a message or a credential."""
    assert action in ACTIONS, action
    return {"action": action, "fields": fields}
