"""``make simulate``: many seeds over all cores, or one, and what came of them. ``make simulate-cluster``: of several machines."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from simulation.cluster_story import ClusterStory
from simulation.story import Story, Verdict

if TYPE_CHECKING:
    from types import FrameType

_MOST_S = 60  # of CPU; a story takes about one, and one that takes so long hangs
_SHOWN_SEEDS = 10
_SHOWN_FINDINGS = 5


def judge(seed: int, *, is_cluster: bool = False) -> Verdict:
    """Return what comes of one story."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"seed {seed} takes longer than {_MOST_S} s of CPU")

    signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, _MOST_S)
    try:
        return (ClusterStory if is_cluster else Story)(seed).run()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def summary(verdicts: list[Verdict], seconds: float, target: str) -> str:
    """Return the figures of all stories, and of those that failed the seed and the first findings."""
    skipped: Counter[str] = Counter()
    injected: Counter[str] = Counter()
    for verdict in verdicts:
        skipped.update(verdict.skipped)
        injected.update(verdict.faults)
    failed = sorted((verdict for verdict in verdicts if verdict.wrong), key=lambda verdict: verdict.seed)
    findings = [finding for verdict in failed for finding in verdict.wrong]
    slots = sum(verdict.slots for verdict in verdicts)
    lines = [
        f"seeds       {len(verdicts):,} in {seconds:.0f} s, {slots // max(1, len(verdicts)):,} slots each",
        f"slots       {slots:,}",
        f"published   {sum(verdict.published for verdict in verdicts):,}",
        f"by command  {sum(verdict.manual for verdict in verdicts):,} of these",
        "not         " + ", ".join(f"{count:,} {reason}" for reason, count in skipped.most_common()),
        f"duplicates  {sum(verdict.duplicates for verdict in verdicts):,}, each after a fault",
        f"commands    {sum(verdict.changes for verdict in verdicts):,}",
        f"crashes     {sum(verdict.crashes for verdict in verdicts):,}",
        "faults      " + ", ".join(f"{count:,} {name}" for name, count in injected.most_common()),
        f"missed      {sum('was missed' in finding for finding in findings)}",
        f"early       {sum(', before ' in finding for finding in findings)}",
        f"failed      {len(failed)} of {len(verdicts)} seeds",
    ]
    for verdict in failed[:_SHOWN_SEEDS]:
        lines.append(f"\nmake {target} SEED={verdict.seed}: {len(verdict.wrong)} findings")
        lines += [f"  {finding}" for finding in verdict.wrong[:_SHOWN_FINDINGS]]
    if len(failed) > _SHOWN_SEEDS:
        lines.append("\nalso " + " ".join(str(verdict.seed) for verdict in failed[_SHOWN_SEEDS:]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate a hundred schedules among faults, once a seed.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--cluster", action="store_true", help="of several machines")
    options = parser.parse_args()
    target = "simulate-cluster" if options.cluster else "simulate"
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else (options.seed,)
    started = time.monotonic()
    verdicts: list[Verdict] = []
    failed = 0
    # The collector would take an eighth of the time, and find little.
    with multiprocessing.Pool(min(options.jobs, len(seeds)), gc.set_threshold, (100_000, 50)) as pool:
        for verdict in pool.imap_unordered(partial(judge, is_cluster=options.cluster), seeds):
            verdicts.append(verdict)
            failed += bool(verdict.wrong)
            if sys.stderr.isatty() or len(verdicts) % 50 == 0:
                end = "\r" if sys.stderr.isatty() else "\n"
                text = f"{len(verdicts):,} of {len(seeds):,} seeds, {failed} failed "
                print(text, end=end, file=sys.stderr, flush=True)
    print(summary(verdicts, time.monotonic() - started, target))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
