"""The process that ``local`` starts: moto's server, mended where it is too slow or too broken to stand in for SNS and SQS.

Run as ``python -m cronally.sns.moto_server PORT``. Seen with moto 5.2.5.
"""

from __future__ import annotations

import base64
import logging
import sys
from time import time  # noqa: TID251 - a process of its own, with no clock to take
from typing import Any

import moto.sqs.models
from moto.server import main
from moto.sqs.models import SQSBackend


def _mend() -> None:
    # Each send looks at every message in the queue three times, through datetime: 10 ms a message once 1,000 lie there.
    setattr(moto.sqs.models, "unix_time_millis", _now_ms)  # noqa: B010 - moto does not export it
    # A Binary attribute delivered raw arrives as base64 text, and breaks every later read of the queue.
    send = SQSBackend.send_message

    def send_decoded(self: Any, *args: Any, **kwargs: Any) -> Any:
        for attribute in (kwargs.get("message_attributes") or {}).values():
            if isinstance(attribute.get("BinaryValue"), str):
                attribute["BinaryValue"] = base64.b64decode(attribute["BinaryValue"])
        return send(self, *args, **kwargs)

    SQSBackend.send_message = send_decoded  # type: ignore[method-assign]


def _now_ms(*_: object) -> float:
    return time() * 1000


if __name__ == "__main__":
    _mend()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line for every request otherwise
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
