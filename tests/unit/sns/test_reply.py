"""Replies of SNS, as bytes: what each says of the entries of a call."""

from __future__ import annotations

import pytest

from cronally.engine.ports import OutcomeClass
from cronally.sns.outcome import NOT_NAMED, PUBLISHED
from cronally.sns.reply import Reply, reply_verdicts

RETRY, HOLD, REJECTED = OutcomeClass.RETRY, OutcomeClass.HOLD, OutcomeClass.REJECTED
XMLNS = 'xmlns="http://sns.amazonaws.com/doc/2010-03-31/"'


def went(place):
    return f"<member><MessageId>94f20ce6-13c5-43a0-9a9e-ca52d816e90b</MessageId><Id>{place}</Id></member>"


def failed(place, code="InvalidParameter", fault="true", message="why"):
    return (
        f"<member><Code>{code}</Code><Message>{message}</Message><Id>{place}</Id>"
        f"<SenderFault>{fault}</SenderFault></member>"
    )


def batch_reply(successful="", failures="", *, head="", tail=""):
    return (
        f"{head}<PublishBatchResponse {XMLNS}><PublishBatchResult><Failed>{failures}</Failed>"
        f"<Successful>{successful}</Successful></PublishBatchResult><ResponseMetadata>"
        f"<RequestId>b2d4d3e8</RequestId></ResponseMetadata></PublishBatchResponse>{tail}"
    )


def read(text, count=3, status=200):
    return reply_verdicts(Reply(status, text.encode()), count)


ALL = went(0) + went(1) + went(2)

# (reply, verdict of each of three entries; a class stands for one with an error)
REPLIES = {
    "all": (batch_reply(ALL), [PUBLISHED] * 3),
    "all, Failed empty": (batch_reply(ALL).replace("<Failed></Failed>", "<Failed/>"), [PUBLISHED] * 3),
    "all, no Failed": (batch_reply(ALL).replace("<Failed></Failed>", ""), [PUBLISHED] * 3),
    "all, declared": (batch_reply(ALL, head='<?xml version="1.0"?>\n', tail="\n"), [PUBLISHED] * 3),
    "another order": (batch_reply(went(2) + went(0) + went(1)), [PUBLISHED] * 3),
    "blanks inside": (batch_reply(ALL).replace("<Id>1</Id>", "<Id> 1 </Id>"), [PUBLISHED] * 3),
    "first only": (batch_reply(went(0)), [PUBLISHED, NOT_NAMED, NOT_NAMED]),
    "one twice": (batch_reply(went(0) + went(0) + went(1)), [PUBLISHED, PUBLISHED, NOT_NAMED]),
    "strangers": (batch_reply(went(7) + went("x") + "<member/>"), [NOT_NAMED] * 3),
    "more than asked": (batch_reply(ALL + went(3)), [PUBLISHED] * 3),
    "one failed": (batch_reply(went(0) + went(2), failed(1)), [PUBLISHED, REJECTED, PUBLISHED]),
    "all failed": (
        batch_reply(
            "", failed(0, "Throttling") + failed(1, "KMSDisabled") + failed(2, "InternalError", "false")
        ),
        [RETRY, HOLD, RETRY],
    ),
    "failed without a code": (batch_reply("", "<member><Id>0</Id></member>"), [RETRY, NOT_NAMED, NOT_NAMED]),
    "both": (batch_reply(ALL, failed(1)), [PUBLISHED] * 3),
    "nobody": (batch_reply(), [NOT_NAMED] * 3),
    "another root": (batch_reply(ALL).replace("PublishBatchResponse", "Other"), [PUBLISHED] * 3),
}


@pytest.mark.parametrize(("text", "expected"), REPLIES.values(), ids=REPLIES)
def test_reply_gives_each_entry_one_verdict(text, expected):
    verdicts = read(text)
    assert [
        v.outcome if isinstance(e, OutcomeClass) else v for v, e in zip(verdicts, expected, strict=True)
    ] == expected


UNREADABLE = {
    "nothing": "",
    "cut": batch_reply(ALL)[:-40],
    "html": "<html><body>Hello<br></body></html>",
    "text": "OK",
    "twice": batch_reply(ALL) * 2,
    "a document type": batch_reply(ALL, head='<!DOCTYPE x [<!ENTITY a "b">]>'),
    "an entity bomb": '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><PublishBatchResponse>&b;'
    "</PublishBatchResponse>",
    "a strange encoding": '<?xml version="1.0" encoding="x-nothing"?><PublishBatchResponse/>',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_a_reply_that_cannot_be_read_leaves_all_unknown(text):
    verdict = read(text)
    assert (verdict.outcome, verdict.is_unknown) == (RETRY, True)
    assert verdict.error == "the reply of SNS cannot be read"


def test_a_success_that_is_commented_out_is_none():
    assert read(batch_reply(went(0) + went(1) + f"<!--{went(2)}-->")) == (PUBLISHED, PUBLISHED, NOT_NAMED)


def test_what_sns_says_of_an_entry_is_kept_unescaped():
    [verdict] = read(batch_reply("", failed(0, message="Invalid &lt;parameter&gt;: a &amp; b")), 1)
    assert verdict.error == "InvalidParameter: Invalid <parameter>: a & b"


@pytest.mark.parametrize("count", range(1, 11))
def test_every_size_of_batch_is_read(count):
    assert read(batch_reply("".join(map(went, range(count)))), count) == (PUBLISHED,) * count


def error(code, message):
    return (
        f"<ErrorResponse {XMLNS}><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        "<RequestId>b2d4d3e8</RequestId></ErrorResponse>"
    )


# (status, body, class, unknown, error)
ERRORS = [
    (400, error("Throttling", "Rate exceeded"), RETRY, False, "Throttling: Rate exceeded"),
    (404, error("NotFound", "Topic does not exist"), HOLD, False, "NotFound: Topic does not exist"),
    (500, error("InternalError", "Sorry"), RETRY, True, "InternalError: Sorry"),
    (400, error("InvalidParameter", "a\n b"), REJECTED, False, "InvalidParameter: a b"),
    (503, "<html><body>Service Unavailable</body></html>", RETRY, True, "503"),
    (503, "", RETRY, True, "503"),
    (413, "<html>", HOLD, False, "413"),
    (302, "", RETRY, True, "302"),
    # a success in the body of an error is none
    (500, batch_reply(ALL), RETRY, True, "500"),
]


@pytest.mark.parametrize(("status", "body", "outcome", "is_unknown", "text"), ERRORS)
def test_an_error_is_about_the_whole_call(status, body, outcome, is_unknown, text):
    verdict = read(body, status=status)
    assert (verdict.outcome, verdict.is_unknown, verdict.error) == (outcome, is_unknown, text)
