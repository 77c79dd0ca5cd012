"""A circuit per topic: closed while SNS takes its messages, open while it refuses all of them (design §4, *Pending*).

1. Only a request that failed as a whole counts, and only if it was released after the newest success: answers come in any
   order. Throttling does not count: it concerns a region, and pacing answers it.
2. ``_FAILURES`` of them in a row open it. One that is held opens it at once, unless it is a repetition and the topic has
   taken something else meanwhile: then it is that message's own affair.
3. While it is open one probe goes at a time, later and later. A success of anything released since it opened closes it.

Synchronous; instants are passed in.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from cronally.domain.policy import BACKOFF_CAP_MS, HOLD_MS, backoff_ms
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from cronally.domain.model import FireKey
    from cronally.engine.fifo import GroupKey
    from cronally.engine.records import LinePlace

FORGOTTEN_AFTER_MS = 600_000  # without anything that waits for it: its schedules may be gone
_FAILURES = 3  # requests in a row: in a burst one of them may meet a server that is about to go


class Circuit:
    """That of one topic.

    Attributes: error: what SNS said last. opened_at: None while it is closed. probe: the fire that is the probe, if one is on
        its way. probe_at: when the next one may go. probed: priority and place of the last probe of a standard topic: the
        next one is another, lest one message that fails by itself keep all others. probed_group: the last group of a FIFO topic.
    """

    __slots__ = (
        "error",
        "failed_us",
        "failures",
        "fed_at",
        "is_starved",
        "opened_at",
        "probe",
        "probe_at",
        "probed",
        "probed_group",
        "succeeded_us",
        "topic",
    )

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.error: str | None = None
        self.opened_at: UtcMs | None = None
        self.probe: FireKey | None = None
        self.probe_at = UtcMs(0)
        self.probed: tuple[int, LinePlace] | None = None
        self.probed_group: GroupKey | None = None
        self.failures = 0
        self.failed_us = 0
        self.fed_at = UtcMs(0)
        self.succeeded_us = 0
        self.is_starved = False

    def succeed(self, released_us: int) -> bool:
        """The topic took something released at *released_us*; return whether that closes the circuit."""
        self.succeeded_us = max(self.succeeded_us, released_us)
        if self.opened_at is None:
            self.failures = 0
            return False
        return released_us >= self.failed_us

    def fail(self, released_us: int, error: str | None, *, is_held: bool, is_first: bool) -> bool:
        """A request failed as a whole; return whether that opens the circuit. is_first: it was the first attempt of some fire."""
        if released_us < self.succeeded_us:
            return False
        self.failed_us = max(self.failed_us, released_us)
        if self.opened_at is not None:
            return False
        self.failures += 1
        self.error = error
        is_alone = is_first or released_us - self.succeeded_us > HOLD_MS * 1000
        return self.failures >= _FAILURES or (is_held and is_alone)


class Circuits:
    """The circuits of all topics.

    Attributes: open: those that are open, by topic. probes: those whose probe is on its way, by its fire.
    """

    def __init__(self) -> None:
        self.open: dict[str, Circuit] = {}
        self.probes: dict[FireKey, Circuit] = {}
        self._all: dict[str, Circuit] = {}
        self._due: list[tuple[UtcMs, str]] = []

    def of(self, topic: str) -> Circuit:
        """Return the circuit of a topic."""
        circuit = self._all.get(topic)
        if circuit is None:
            circuit = self._all[topic] = Circuit(topic)
        return circuit

    def trip(self, circuit: Circuit, now: UtcMs, *, is_held: bool, jitter: float) -> None:
        """Open a circuit; its first probe goes after a backoff. jitter: uniform in [0, 1)."""
        circuit.opened_at = circuit.fed_at = now
        circuit.probed = circuit.probed_group = None
        circuit.is_starved = False
        self.open[circuit.topic] = circuit
        self._probe_after(circuit, now, is_held=is_held, jitter=jitter)

    def close(self, circuit: Circuit) -> None:
        """Close a circuit."""
        circuit.opened_at = circuit.error = None
        circuit.failures = 0
        del self.open[circuit.topic]
        self._forget_probe(circuit)

    # --- probes -----------------------------------------------------------------------------------------------------

    def next_probe(self) -> UtcMs | None:
        """Return when the next probe may go, or None."""
        while self._due:
            at, topic = self._due[0]
            circuit = self.open.get(topic)
            if circuit is not None and circuit.probe_at == at and circuit.probe is None:
                return at
            heapq.heappop(self._due)
        return None

    def take_due(self, now: UtcMs) -> Circuit | None:
        """Return an open circuit whose probe may go now; ``begin_probe`` or ``starve`` it."""
        at = self.next_probe()
        return None if at is None or at > now else self.open[heapq.heappop(self._due)[1]]

    def begin_probe(self, circuit: Circuit, key: FireKey) -> None:
        """The fire *key* goes as the probe of *circuit*, past the circuit."""
        circuit.probe = key
        self.probes[key] = circuit

    def is_barred(self, topic: str, key: FireKey) -> bool:
        """Whether a fire may not go, because its topic refuses all and it is not the probe."""
        circuit = self.open.get(topic)
        return circuit is not None and circuit.probe != key

    def end_probe(
        self, circuit: Circuit, now: UtcMs, error: str | None, *, is_held: bool, jitter: float
    ) -> None:
        """The probe failed: the next one goes after a longer backoff."""
        self._forget_probe(circuit)
        circuit.failures += 1
        circuit.error = error
        self._probe_after(circuit, now, is_held=is_held, jitter=jitter)

    def lose_probe(self, circuit: Circuit) -> None:
        """The probe was not sent, or its answer says nothing about the topic: another one may go at once."""
        self._forget_probe(circuit)
        self._push(circuit)

    def postpone(self, circuit: Circuit, at: UtcMs) -> None:
        """No probe can be sent before *at*."""
        circuit.probe_at = at
        self._push(circuit)

    def starve(self, circuit: Circuit, now: UtcMs) -> None:
        """There is nothing to probe with: look again when there may be."""
        circuit.is_starved = True
        circuit.probe_at = UtcMs(max(circuit.probe_at, now + BACKOFF_CAP_MS))
        self._push(circuit)

    def feed(self, topic: str, now: UtcMs) -> bool:
        """A fire of *topic* has become pending; return whether it may be sent, or was waited for by a probe."""
        circuit = self.open.get(topic)
        if circuit is None:
            return True
        circuit.fed_at = now
        if not circuit.is_starved:
            return False
        circuit.is_starved = False
        circuit.probe_at = now
        self._push(circuit)
        return True

    def hurry(self, topic: str, now: UtcMs) -> None:
        """Somebody asks for a fire of *topic*, maybe because it is repaired: the next probe goes at once."""
        circuit = self.open.get(topic)
        if circuit is not None and circuit.probe is None:
            circuit.is_starved = False
            circuit.fed_at = circuit.probe_at = now
            self._push(circuit)

    def forget_instants(self, now: UtcMs) -> None:
        """The clock was set back: every probe may go at once."""
        for circuit in self.open.values():
            circuit.probe_at = now
            circuit.opened_at = UtcMs(min(circuit.opened_at or now, now))
            circuit.fed_at = now
            self._push(circuit)
        for circuit in self._all.values():
            circuit.failed_us = circuit.succeeded_us = 0

    def summary(self) -> list[Circuit]:
        """Return the open circuits, the longest open first."""
        return sorted(self.open.values(), key=lambda circuit: (circuit.opened_at or 0, circuit.topic))

    def _probe_after(self, circuit: Circuit, now: UtcMs, *, is_held: bool, jitter: float) -> None:
        wait_ms = HOLD_MS if is_held else backoff_ms(circuit.failures, jitter)
        circuit.probe_at = UtcMs(now + wait_ms)
        self._push(circuit)

    def _push(self, circuit: Circuit) -> None:
        heapq.heappush(self._due, (circuit.probe_at, circuit.topic))

    def _forget_probe(self, circuit: Circuit) -> None:
        if circuit.probe is not None:
            self.probes.pop(circuit.probe, None)
            circuit.probe = None
