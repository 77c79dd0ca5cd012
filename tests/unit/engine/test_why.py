"""Why a schedule has a fire at an instant, or has none."""

from cronally.domain.instant_text import Asked
from cronally.domain.model import JournalEntry, SkipReason, State
from cronally.engine.retention import Keep
from cronally.engine.why import why
from support.rig import running_engine


async def fate(rig, name, at):
    found = await rig.service.why(name, at)
    return found.fate, found.text


async def test_a_slot_to_come_and_no_slot():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", ends="2026-12-01T00:00:00Z")
        assert await fate(rig, "a", "2026-11-23T09:00:00Z") == ("upcoming", "it is still to come")
        assert await fate(rig, "a", "2026-11-23T09:01:00Z") == (
            "none",
            "there is no slot: minute does not match",
        )
        assert "ended with" in (await fate(rig, "a", "2026-12-02T09:00:00Z"))[1]
        assert "in effect since" in (await fate(rig, "a", "2026-11-20T09:00:00Z"))[1]


async def test_a_slot_before_the_start_and_one_that_is_spread():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", starts="2026-12-01T00:00:00Z", spread="1h")
        assert "starts at 2026-12-01" in (await fate(rig, "a", "2026-11-25T09:00:00Z"))[1]
        found = await rig.service.why("a", "2026-12-02T09:00:00Z")
        assert found.due > found.asked.at
        assert "spread" in found.text


async def test_a_published_slot_and_a_manual_fire_beside_it():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance(60)
        found = await rig.service.why("a", "2026-11-23T09:00")
        assert found.fate == "published"
        assert found.text.startswith("SNS accepted it at 2026-11-23T09:00:0")
        run = await rig.service.run("a", by="test")
        await rig.clock.advance(1)
        found = await rig.service.why("a", run.partition("@")[2].removesuffix("+manual"))
        assert (found.fate, [row.entry.kind for row in found.rows]) == ("none", ["manual"])


async def test_slots_of_a_pause():
    async with running_engine() as rig:
        await rig.add("a", "* * * * *")
        await rig.service.pause("a", by="test")
        await rig.clock.advance(200)
        inside, text = await fate(rig, "a", "2026-11-23T09:01:00Z")
        assert (inside, "the schedule was paused" in text, "one row says so" in text) == (
            "skipped",
            True,
            True,
        )
        assert (await fate(rig, "a", "2026-11-23T09:01:30Z"))[0] == "none"
        later, text = await fate(rig, "a", "2026-11-23T10:00:00Z")
        assert (later, "until it is resumed" in text) == ("none", True)
        await rig.service.resume("a", by="test")
        assert (await fate(rig, "a", "2026-11-23T09:01:00Z"))[0] == "skipped"
        assert (await fate(rig, "a", "2026-11-23T10:00:00Z"))[0] == "upcoming"


async def test_the_journal_is_believed_before_the_present_rule():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance(60)
        await rig.set("a", when="0 10 * * *")
        found = await rig.service.why("a", "2026-11-23T09:00:00Z")
        assert (found.fate, found.match.is_slot) == ("published", False)
        assert "the rule was '0 9 * * *' then" in found.text


async def test_after_a_crash_it_is_admitted_that_a_fire_may_have_been_published():
    async with running_engine() as rig:
        await rig.add("a", "* * * * *")
        [stored] = await rig.store.schedules()
        at = stored.effective_from + 30_000  # 09:00:00
        common = {"schedule_id": stored.id, "revision_id": stored.revision_id, "maybe_published": True}
        entries = [
            JournalEntry(
                **common,
                fire_time=at,
                due_time=at,
                last_fire_time=at + 240_000,
                count=5,
                state=State.SKIPPED,
                reason=SkipReason.CATCH_UP,
            ),
            JournalEntry(**common, fire_time=at + 300_000, due_time=at + 300_000, state=State.EXPIRED),
            JournalEntry(
                **common,
                fire_time=at + 360_000,
                due_time=at + 360_000,
                state=State.REJECTED,
                last_error="InvalidParameter: no",
            ),
            JournalEntry(
                **common,
                fire_time=at + 420_000,
                due_time=at + 420_000,
                state=State.PENDING,
                attempts=2,
                next_attempt_at=at + 500_000,
            ),
        ]
        await rig.store.commit(entries, watermark=None)
        texts = {minute: await fate(rig, "a", f"2026-11-23T09:0{minute}:00Z") for minute in (2, 5, 6, 7)}
        assert [texts[minute][0] for minute in texts] == ["skipped", "expired", "rejected", "pending"]
        assert all("may have been published" in text for _, text in texts.values())
        assert "SNS said: InvalidParameter" in texts[6][1]
        assert "attempts so far: 2, next at 2026-11-23T09:08:20Z" in texts[7][1]


async def test_a_slot_that_is_due_and_one_that_left_no_record():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *")
        [stored] = await rig.store.schedules()
        nine = stored.effective_from + 30_000
        due = why(stored, Asked(nine), [], {}, now=nine, watermark=nine - 1, pruned_through=None, keep=Keep())
        assert due.fate == "unsettled"
        gone = why(
            stored, Asked(nine), [], {}, now=nine + 1, watermark=nine, pruned_through=None, keep=Keep()
        )
        assert gone.fate == "unknown"
        assert "although the journal goes back so far" in gone.text


async def test_a_slot_whose_entry_is_pruned_and_one_of_an_earlier_rule():
    async with running_engine() as rig:
        await rig.add("a", "* * * * *")
        await rig.clock.advance(200)
        await rig.store.prune(rig.clock.wall() - 100_000)
        rig.engine.core.pruned_through = (await rig.store.prune(0)).through
        gone, text = await fate(rig, "a", "2026-11-23T09:00:00Z")
        assert gone == "pruned"
        assert (
            "keeps 30d or 2 GiB, what comes first, and has let go of slots due up to 2026-11-23T09:01:00Z"
            in text
        )
        assert (await fate(rig, "a", "2026-11-23T09:02:00Z"))[0] == "published"
        await rig.set("a", when="0 9 * * *")
        none, text = await fate(rig, "a", "2026-11-23T09:01:00Z")
        assert (none, "what came of another rule then is pruned" in text) == ("none", True)
        for instant in (
            "2026-11-23T08:00:00Z",
            "2026-11-23T09:02:30Z",
        ):  # before there was one; still on record
            none, text = await fate(rig, "a", instant)
            assert (none, "pruned" in text) == ("none", False)
