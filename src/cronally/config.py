"""Settings of the daemon: defaults < file (TOML) < ``CRONALLY_*`` < flags, resolved once into one frozen object.

Every value remembers where it came from; an unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.admin.listen import EXAMPLE, parse_listen
from cronally.admin.paths import check_path, default_socket, state_directory
from cronally.domain.allowed import MOST_PATTERNS, parse_topic_pattern
from cronally.domain.durations import HOUR_MS, format_duration, parse_duration
from cronally.domain.sizes import format_size, parse_size
from cronally.domain.store_name import StoreName, parse_store_name
from cronally.domain.topic import parse_topic_arn
from cronally.engine.retention import DEFAULT_KEEP_MS, DEFAULT_MAX_BYTES, Keep
from cronally.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cronally.admin.listen import Listen

# Of the file: their settings have the table's name before their own.
_TABLES = ("sns", "journal", "log", "alerts", "metrics")
DEFAULT_LOCAL_PORT = 4566  # design §10: where LocalStack listens too, so that tools find the stand-in
_MOST_PER_S = 1_000_000  # messages a second; more than any quota of SNS, so a slip
_LEAST_KEEP_MS = HOUR_MS  # what is missed, retried or looked into is within that
_LEAST_SIZE_BYTES = 16 << 20  # less would hold hardly more than the schedules
LOG_FORMATS = ("auto", "text", "json")
_OFF = "off"
DEFAULT_LEASE = "8s"  # design §12: with it, what a machine drove fires again within 10 s of a crash
_LEAST_LEASE = "3s"  # renewed three times in that, each with a second to spare
DEFAULT_DRAIN = "10s"  # longer than an attempt usually takes; systemd waits 90 s before it kills


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a daemon is started with.

    Fields: store. lease_ms: how long a machine of several may be silent before another one takes over. machine: what this one is
        called among them, None for its host name. state_directory: of files
        beside the store. socket: admin socket. read_only_group: whose members may read, and no more; None for
        nobody. is_local: publish to the local stand-in. local_port: where it is
        started, 1-65535. sns_quota: messages a second by region, or by ``default`` for those not named; 0 for no pacing,
        absent for what AWS publishes. sns_topics: patterns of the topics that may be published to, None for all. journal: how much of it is kept. metrics_listen: where metrics are served over TCP,
        None for nowhere. trust_clock: believe the wall clock whatever it says. drain_timeout_s: how long a stop waits for
        attempts in flight. log_format: one of LOG_FORMATS. alerts_topic: ARN, None to tell nobody. values: all of that by
        the keys of the settings. sources: for each key where its value came from. file: of the settings, None without one.
    """

    store: StoreName
    lease_ms: int
    machine: str | None
    state_directory: str
    socket: str
    read_only_group: str | None
    is_local: bool
    local_port: int
    sns_quota: Mapping[str, float]
    sns_topics: tuple[str, ...] | None
    journal: Keep
    metrics_listen: Listen | None
    trust_clock: bool
    drain_timeout_s: float
    log_format: str
    alerts_topic: str | None
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    file: str | None

    @property
    def store_path(self) -> str:
        """The file of the store. Errors: UsageError if it is no file."""
        if self.store.kind != "sqlite":
            raise UsageError(
                f"{self.store} is a table, and this is for a store in a file; 'cronally store copy' copies one to the other"
            )
        return self.store.place


def load_config(
    environ: Mapping[str, str], flags: Mapping[str, object], *, config_file: str | None = None
) -> Config:
    """Return the settings. flags: by key, None where a flag was not given.

    Errors: ConfigError names the key, where its value came from, and the right form.
    """
    values: dict[str, tuple[object, str]] = {
        "store": (f"sqlite:{state_directory(environ)}/cronally.db", "default"),
        "lease": (DEFAULT_LEASE, "default"),
        "machine": (None, "default"),
        "socket": (
            default_socket(environ),
            "CRONALLY_SOCKET" if environ.get("CRONALLY_SOCKET") else "default",
        ),
        "read_only_group": (None, "default"),
        "local": (False, "default"),
        "local_port": (DEFAULT_LOCAL_PORT, "default"),
        "sns_quota": ({}, "default"),
        "sns_topics": (None, "default"),
        "journal_keep": (format_duration(DEFAULT_KEEP_MS), "default"),
        "journal_max_size": (format_size(DEFAULT_MAX_BYTES), "default"),
        "metrics_listen": (_OFF, "default"),
        "trust_clock": (False, "default"),
        "drain_timeout": (DEFAULT_DRAIN, "default"),
        "log_format": ("auto", "default"),
        "alerts_topic": (None, "default"),
    }
    file = config_file or environ.get("CRONALLY_CONFIG")
    if file:
        values |= {key: (value, file) for key, value in _flattened(_read_file(file), file).items()}
    for key in _READERS:
        variable = f"CRONALLY_{key.upper()}"
        if environ.get(variable):
            values[key] = (environ[variable], variable)
    values |= {
        key: (value, f"--{key.replace('_', '-')}") for key, value in flags.items() if value is not None
    }
    return _config(
        {key: _READERS[key](key, *values[key]) for key in _READERS},
        {key: source for key, (_, source) in values.items()},
        file or None,
        state_directory(environ),
    )


def _config(
    read: Mapping[str, Any], sources: Mapping[str, str], file: str | None, shared_state: str
) -> Config:
    store: StoreName = read["store"]
    return Config(
        store=store,
        lease_ms=read["lease"],
        machine=read["machine"],
        state_directory=str(Path(store.place).absolute().parent) if store.kind == "sqlite" else shared_state,
        socket=read["socket"],
        read_only_group=read["read_only_group"],
        is_local=read["local"],
        local_port=read["local_port"],
        sns_quota=read["sns_quota"],
        sns_topics=read["sns_topics"],
        journal=Keep(keep_ms=read["journal_keep"], max_bytes=read["journal_max_size"]),
        metrics_listen=read["metrics_listen"],
        trust_clock=read["trust_clock"],
        drain_timeout_s=read["drain_timeout"],
        log_format=read["log_format"],
        alerts_topic=read["alerts_topic"],
        values=read,
        sources=sources,
        file=file,
    )


# --- showing and changing ---------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A setting in force. key: as a file names it. value: as a file would have it. kind: default, file, variable or flag. source: which."""

    key: str
    value: object
    kind: str
    source: str

    @property
    def text(self) -> str:
        """The value on one line."""
        if isinstance(self.value, dict):
            return (
                ",".join(f"{name}={rate:g}" for name, rate in self.value.items()) or "as AWS publishes them"
            )
        if isinstance(self.value, list):
            return ",".join(self.value)
        if self.value is None:
            return _WITHOUT.get(self.key, "none")
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


def settings(config: Config) -> list[Setting]:
    """Return all settings with where they came from, in the order of the documentation."""
    return [_setting(config, key) for key in _READERS]


def _setting(config: Config, key: str) -> Setting:
    value, source = config.values[key], config.sources[key]
    kind = (
        "default"
        if source == "default"
        else "flag"
        if source.startswith("--")
        else "variable"
        if source.startswith("CRONALLY_")
        else "file"
    )
    return Setting(written_in_files(key), _WRITERS[key](value) if key in _WRITERS else value, kind, source)


class Reloaded(NamedTuple):
    """What it comes to that settings are read again while a daemon runs.

    Fields: config: in force from now on. applied: what changes at once. waiting: what differs and needs a restart. Both
        as sentences.
    """

    config: Config
    applied: tuple[str, ...]
    waiting: tuple[str, ...]


def reloaded(running: Config, read: Config) -> Reloaded:
    """Return what becomes of the settings of a daemon that is *running* now that others were *read*."""
    differing = [key for key in _READERS if running.values[key] != read.values[key]]
    told = {key: _difference(_setting(running, key), _setting(read, key)) for key in differing}
    values, sources = dict(running.values), dict(running.sources)
    for key in WHILE_RUNNING:
        values[key], sources[key] = read.values[key], read.sources[key]
    return Reloaded(
        _config(values, sources, read.file, running.state_directory),
        tuple(told[key] for key in differing if key in WHILE_RUNNING),
        tuple(told[key] for key in differing if key not in WHILE_RUNNING),
    )


def _difference(before: Setting, after: Setting) -> str:
    return f"{after.key}: {before.text} -> {after.text} (from {after.source})"


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_file(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            values = tomllib.load(file)
    except OSError as exc:
        raise ConfigError("--config", path, f"it cannot be read ({exc.strerror})") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError("--config", path, f"it is not TOML: {exc}") from exc
    return values


def _flattened(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the settings of a file by key: ``quota`` in the table ``[sns]`` is ``sns_quota``. Errors: ConfigError for unknown ones."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in _TABLES and isinstance(value, dict):
            found |= {f"{key}.{inner}": given for inner, given in value.items()}
        else:
            found[key] = value
    known = {written_in_files(key): key for key in _READERS}
    for key in found:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
            raise ConfigError(key, path, f"no such setting; {fix}")
    return {known[key]: value for key, value in found.items()}


def written_in_files(key: str) -> str:
    """Return how a file names the setting *key*, with its table before a dot."""
    table, _, inner = key.partition("_")
    return f"{table}.{inner}" if table in _TABLES else key


def _text(key: str, value: object, source: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, source, "must be text")
    return value


def _store(key: str, value: object, source: str) -> StoreName:
    try:
        name = parse_store_name(_text(key, value, source))
    except ValueError as exc:
        raise ConfigError(key, source, str(exc)) from None
    return name._replace(place=str(Path(name.place).expanduser())) if name.kind == "sqlite" else name


def _lease(key: str, value: object, source: str) -> int:
    return _at_least(_LEAST_LEASE, parse_duration, key, value, source)


def _machine(key: str, value: object, source: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ConfigError(
            key, source, f"{value!r} must be 1 to 64 letters, digits, '.', '-' and '_', as a host name is"
        )
    return value


def _socket(key: str, value: object, source: str) -> str:
    return check_path(str(Path(_text(key, value, source)).expanduser()))


def _group(key: str, value: object, source: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[^\s:,/-][^\s:,/]{0,254}", value):
        raise ConfigError(key, source, f"{value!r} must be the name of a group of this machine")
    return value


def _flag(key: str, value: object, source: str) -> bool:
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if not isinstance(value, str) or value.lower() not in known:
        raise ConfigError(key, source, f"{value!r} must be true or false")
    return known[value.lower()]


def _port(key: str, value: object, source: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise ConfigError(key, source, f"{value!r} must be a port number, 1 to 65535")
    return int(text)


def _seconds(key: str, value: object, source: str) -> float:
    try:
        return parse_duration(_text(key, value, source)) / 1000
    except ValueError as exc:
        raise ConfigError(key, source, str(exc)) from None


def _listen(key: str, value: object, source: str) -> Listen | None:
    key = written_in_files(key)
    text = _text(key, value, source)
    try:
        return None if text == _OFF else parse_listen(text)
    except ValueError as exc:
        raise ConfigError(key, source, str(exc)) from None


def _keep(key: str, value: object, source: str) -> int:
    return _at_least(format_duration(_LEAST_KEEP_MS), parse_duration, key, value, source)


def _size(key: str, value: object, source: str) -> int:
    return _at_least(format_size(_LEAST_SIZE_BYTES), parse_size, key, value, source)


def _at_least(least: str, parse: Callable[[str], int], key: str, value: object, source: str) -> int:
    key = written_in_files(key)
    try:
        read = parse(_text(key, value, source))
    except ValueError as exc:
        raise ConfigError(key, source, str(exc)) from None
    if read < parse(least):
        raise ConfigError(key, source, f"{value!r} must be {least} or more")
    return read


_REGION = re.compile(r"default|[a-z]{2,}(-[a-z]+)+-\d", re.ASCII)
_QUOTA_FORM = "write REGION = messages a second (0: no pacing), or default = … for the regions not named"


def _quota(key: str, value: object, source: str) -> dict[str, float]:
    """Read the table of a file, or the text of a variable: ``us-east-1=30000,default=0``."""
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        value = {region.strip(): rate.strip() for region, _, rate in pairs}
    if not isinstance(value, dict):
        raise ConfigError(written_in_files(key), source, _QUOTA_FORM)
    return {
        region: _rate(f"{written_in_files(key)}.{region}", region, rate, source)
        for region, rate in value.items()
    }


def _rate(key: str, region: str, value: object, source: str) -> float:
    if not _REGION.fullmatch(region):
        raise ConfigError(key, source, f"{region!r} is no AWS region; {_QUOTA_FORM}")
    try:
        rate = -1.0 if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError):
        rate = -1.0
    if not 0 <= rate <= _MOST_PER_S or 0 < rate < 1:
        raise ConfigError(key, source, f"{value!r} must be 0 or a number from 1 to {_MOST_PER_S:,}")
    return rate


def _topic(key: str, value: object, source: str) -> str | None:
    if value is None:
        return None
    try:
        return parse_topic_arn(_text(key, value, source)).text
    except ValueError as exc:
        raise ConfigError(written_in_files(key), source, str(exc)) from exc


def _log_format(key: str, value: object, source: str) -> str:
    read = _text(key, value, source)
    if read not in LOG_FORMATS:
        raise ConfigError(
            written_in_files(key), source, f"must be {', '.join(LOG_FORMATS)}, not {read[:50]!r}"
        )
    return read


def _topics(key: str, value: object, source: str) -> tuple[str, ...] | None:
    """Read the list of a file, or the text of a variable, with commas between."""
    key = written_in_files(key)
    if value is None:
        return None
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list):
        raise ConfigError(
            key, source, 'must be a list such as ["arn:aws:sns:us-east-1:123456789012:reports*"]'
        )
    if not 1 <= len(value) <= MOST_PATTERNS:
        raise ConfigError(
            key,
            source,
            f"takes 1 to {MOST_PATTERNS:,} topics and there are {len(value):,}; leave it out to allow all",
        )
    try:
        return tuple(dict.fromkeys(map(parse_topic_pattern, value)))
    except ValueError as exc:
        raise ConfigError(key, source, str(exc)) from None


_READERS: dict[str, Callable[[str, object, str], Any]] = {
    "store": _store,
    "lease": _lease,
    "machine": _machine,
    "socket": _socket,
    "read_only_group": _group,
    "local": _flag,
    "local_port": _port,
    "sns_quota": _quota,
    "sns_topics": _topics,
    "journal_keep": _keep,
    "journal_max_size": _size,
    "metrics_listen": _listen,
    "trust_clock": _flag,
    "drain_timeout": _seconds,
    "log_format": _log_format,
    "alerts_topic": _topic,
}

WHILE_RUNNING: Final = ("sns_quota", "sns_topics", "journal_keep", "journal_max_size", "drain_timeout")
"""The settings that a running daemon takes over when it reads them again; the others need a restart."""


_WRITERS: dict[str, Callable[[Any], object]] = {
    "store": str,
    "lease": format_duration,
    "sns_quota": dict,
    "sns_topics": lambda topics: None if topics is None else list(topics),
    "journal_keep": format_duration,
    "journal_max_size": format_size,
    "drain_timeout": lambda seconds: format_duration(round(seconds * 1000)),
}
"""How a file would have the value that a reader returned, where that is not the same."""

_WITHOUT: Final = {"sns.topics": "all", "machine": "its host name"}
"""What it comes to that a setting has no value."""

MEANINGS: dict[str, str] = {
    "store": "Where schedules and journal are kept: sqlite:PATH, or dynamodb:TABLE for several machines. "
    "[default: a file in the state directory]",
    "lease": "How long one of several machines may be silent before another one takes over what it drives, 3s or more; the same on each. "
    f"[default: {DEFAULT_LEASE}]",
    "machine": "What this machine is called among several that share a table, in 'cronally status' and the log. [default: its host name]",
    "socket": "Where the daemon answers commands, and the other commands look for it. "
    "[default: in the runtime directory, or in the state directory if there is none]",
    "read_only_group": "A group whose members have a socket of their own, cronally-ro.sock beside the other, on which nothing can be "
    "changed. [default: none]",
    "local": "With true, messages go to a local stand-in for SNS and SQS. [default: false]",
    "local_port": f"Where the stand-in is started. [default: {DEFAULT_LOCAL_PORT}]",
    "sns_quota": "Messages a second that SNS takes in each region, such as us-east-1=50000,default=0; 0 is no pacing. "
    "[default: the quotas that AWS publishes]",
    "sns_topics": "Topics that may be published to, with * for any characters of a part of the ARN, such as "
    "arn:aws:sns:us-east-1:123456789012:reports*. [default: all]",
    "journal_keep": "How long the journal says what became of a fire, an hour or more. "
    f"[default: {format_duration(DEFAULT_KEEP_MS)}]",
    "journal_max_size": "How large the store may become before the oldest entries of the journal go. "
    f"[default: {format_size(DEFAULT_MAX_BYTES)}]",
    "metrics_listen": f"Where Prometheus may read metrics on this machine, such as {EXAMPLE}; the admin socket has them, too. "
    f"[default: {_OFF}]",
    "trust_clock": "With true, the wall clock is believed, whatever it says. [default: false]",
    "alerts_topic": "The SNS topic that gets one message when fires of a schedule fail or are late, and one when they do not any more. "
    "[default: none]",
    "log_format": "How the log is written: json, one object a line, or text; auto is text on a terminal and json elsewhere. [default: auto]",
    "drain_timeout": f"How long a stop waits for messages in flight. [default: {DEFAULT_DRAIN}]",
}
"""What each setting is for, for a person; ``CRONALLY_`` and the key in capitals is its variable."""
