"""The composition root: the only place that builds things, and the order in which they start and stop."""

from __future__ import annotations

from cronally.app.aws import check_topic, create_topic, examine, subscribe_topic, topic_states
from cronally.app.daemon import serve
from cronally.app.demo import Messages, Stage, demo_stage
from cronally.app.event_loop import run
from cronally.app.stores import copy_between, copy_store, create_table, restore_store

__all__ = [
    "Messages",
    "Stage",
    "check_topic",
    "copy_between",
    "copy_store",
    "create_table",
    "create_topic",
    "demo_stage",
    "examine",
    "restore_store",
    "run",
    "serve",
    "subscribe_topic",
    "topic_states",
]
