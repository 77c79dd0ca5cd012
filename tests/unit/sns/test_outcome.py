"""Errors to outcome classes: SNS API Reference (Publish, PublishBatch), botocore's retry lists, design §6."""

from __future__ import annotations

import pytest

from cronally.engine.ports import OutcomeClass
from cronally.sns.outcome import MAX_ERROR_CHARS, NOT_NAMED, call_verdict, entry_verdict

RETRY, HOLD, REJECTED = OutcomeClass.RETRY, OutcomeClass.HOLD, OutcomeClass.REJECTED
UNKNOWN, KNOWN = True, False
ALONE, SPLIT = False, True

# (code, status, class, unknown, may be one entry's fault)
CALLS = [
    # throttling, in all its spellings; SNS sends a 400 for it
    ("Throttling", 400, RETRY, KNOWN, ALONE),
    ("ThrottlingException", 400, RETRY, KNOWN, ALONE),
    ("Throttled", 429, RETRY, KNOWN, ALONE),
    ("ThrottledException", 429, RETRY, KNOWN, ALONE),
    ("RequestThrottled", 400, RETRY, KNOWN, ALONE),
    ("RequestThrottledException", 400, RETRY, KNOWN, ALONE),
    ("TooManyRequestsException", 429, RETRY, KNOWN, ALONE),
    ("RequestLimitExceeded", 503, RETRY, KNOWN, ALONE),
    ("LimitExceededException", 400, RETRY, KNOWN, ALONE),
    ("BandwidthLimitExceeded", 509, RETRY, KNOWN, ALONE),
    ("SlowDown", 503, RETRY, KNOWN, ALONE),
    ("PriorRequestNotComplete", 400, RETRY, KNOWN, ALONE),
    ("ProvisionedThroughputExceededException", 400, RETRY, KNOWN, ALONE),
    ("KMSThrottling", 400, RETRY, KNOWN, ALONE),
    ("KMSThrottlingException", 400, RETRY, KNOWN, ALONE),
    ("Whatever", 429, RETRY, KNOWN, ALONE),
    # the server's trouble: it may have taken the message
    ("InternalError", 500, RETRY, UNKNOWN, ALONE),
    ("InternalErrorException", 500, RETRY, UNKNOWN, ALONE),
    ("InternalFailure", 500, RETRY, UNKNOWN, ALONE),
    ("InternalServerError", 500, RETRY, UNKNOWN, ALONE),
    ("ServiceUnavailable", 503, RETRY, UNKNOWN, ALONE),
    ("ServiceUnavailableException", 503, RETRY, UNKNOWN, ALONE),
    ("RequestTimeout", 400, RETRY, UNKNOWN, ALONE),
    ("RequestTimeoutException", 408, RETRY, UNKNOWN, ALONE),
    ("502", 502, RETRY, UNKNOWN, ALONE),
    ("504", 504, RETRY, UNKNOWN, ALONE),
    ("408", 408, RETRY, UNKNOWN, ALONE),
    ("Unknown", 200, RETRY, UNKNOWN, ALONE),
    ("Unknown", 0, RETRY, UNKNOWN, ALONE),
    # credentials and clock: the next attempt has new ones
    ("ExpiredToken", 403, RETRY, KNOWN, ALONE),
    ("ExpiredTokenException", 403, RETRY, KNOWN, ALONE),
    ("InvalidClientTokenId", 403, RETRY, KNOWN, ALONE),
    ("UnrecognizedClientException", 400, RETRY, KNOWN, ALONE),
    ("SignatureDoesNotMatch", 403, RETRY, KNOWN, ALONE),
    ("InvalidSignatureException", 403, RETRY, KNOWN, ALONE),
    ("RequestExpired", 400, RETRY, KNOWN, ALONE),
    # somebody must repair it
    ("NotFound", 404, HOLD, KNOWN, ALONE),
    ("NotFoundException", 404, HOLD, KNOWN, ALONE),
    ("AuthorizationError", 403, HOLD, KNOWN, ALONE),
    ("AuthorizationErrorException", 403, HOLD, KNOWN, ALONE),
    ("AccessDenied", 403, HOLD, KNOWN, ALONE),
    ("AccessDeniedException", 400, HOLD, KNOWN, ALONE),
    ("InvalidSecurity", 403, HOLD, KNOWN, ALONE),
    ("KMSDisabled", 400, HOLD, KNOWN, ALONE),
    ("KMSInvalidState", 400, HOLD, KNOWN, ALONE),
    ("KMSNotFound", 400, HOLD, KNOWN, ALONE),
    ("KMSAccessDenied", 400, HOLD, KNOWN, ALONE),
    ("KMSAccessDeniedException", 400, HOLD, KNOWN, ALONE),
    ("KMSOptInRequired", 403, HOLD, KNOWN, ALONE),
    ("EndpointDisabled", 400, HOLD, KNOWN, ALONE),
    ("PlatformApplicationDisabled", 400, HOLD, KNOWN, ALONE),
    ("OptInRequired", 403, HOLD, KNOWN, ALONE),
    ("MissingAuthenticationToken", 403, HOLD, KNOWN, ALONE),
    ("InvalidAction", 400, HOLD, KNOWN, ALONE),
    ("403", 403, HOLD, KNOWN, ALONE),
    ("404", 404, HOLD, KNOWN, ALONE),
    # never heard of: nothing is lost by holding it, and perhaps only one entry is to blame
    ("SomethingNew", 400, HOLD, KNOWN, SPLIT),
    ("413", 413, HOLD, KNOWN, SPLIT),
    # this message
    ("InvalidParameter", 400, REJECTED, KNOWN, SPLIT),
    ("InvalidParameterException", 400, REJECTED, KNOWN, SPLIT),
    ("InvalidParameterValue", 400, REJECTED, KNOWN, SPLIT),
    ("InvalidParameterValueException", 400, REJECTED, KNOWN, SPLIT),
    ("ParameterValueInvalid", 400, REJECTED, KNOWN, SPLIT),
    ("ValidationError", 400, REJECTED, KNOWN, SPLIT),
    ("ValidationException", 400, REJECTED, KNOWN, SPLIT),
    ("BatchRequestTooLong", 400, REJECTED, KNOWN, SPLIT),
    ("InvalidBatchEntryId", 400, REJECTED, KNOWN, SPLIT),
]


@pytest.mark.parametrize(("code", "status", "outcome", "is_unknown", "may_split"), CALLS, ids=str)
def test_call_error(code, status, outcome, is_unknown, may_split):
    verdict = call_verdict(code, "some text", status)
    assert verdict.outcome is outcome
    assert verdict.is_unknown is is_unknown
    assert verdict.may_be_one_entry is may_split
    assert verdict.error == f"{code}: some text"


@pytest.mark.parametrize(
    ("code", "is_refused"),
    [
        ("ExpiredToken", True),
        ("InvalidClientTokenId", True),
        ("SignatureDoesNotMatch", False),
        ("Throttling", False),
    ],
)
def test_refused_credentials_are_marked(code, is_refused):
    assert call_verdict(code, "", 403).are_credentials_refused is is_refused


# (code, sender's fault, class, unknown)
ENTRIES = [
    ("InvalidParameter", True, REJECTED, KNOWN),
    ("InvalidParameter", False, REJECTED, KNOWN),
    ("ParameterValueInvalid", True, REJECTED, KNOWN),
    ("SomethingNew", True, REJECTED, KNOWN),
    ("SomethingNew", False, RETRY, KNOWN),
    # the code decides, whatever is said of the fault
    ("Throttling", True, RETRY, KNOWN),
    ("KMSThrottling", True, RETRY, KNOWN),
    ("InternalError", True, RETRY, UNKNOWN),
    ("ServiceUnavailable", False, RETRY, UNKNOWN),
    ("KMSDisabled", True, HOLD, KNOWN),
    ("AuthorizationError", True, HOLD, KNOWN),
    ("NotFound", True, HOLD, KNOWN),
]


@pytest.mark.parametrize(("code", "is_sender_fault", "outcome", "is_unknown"), ENTRIES, ids=str)
def test_failed_entry(code, is_sender_fault, outcome, is_unknown):
    verdict = entry_verdict(code, "why", is_sender_fault=is_sender_fault)
    assert (verdict.outcome, verdict.is_unknown) == (outcome, is_unknown)
    assert verdict.error == f"{code}: why"
    assert not verdict.may_be_one_entry


@pytest.mark.parametrize(
    ("code", "is_throttled"),
    [
        ("Throttling", True),
        ("RequestLimitExceeded", True),
        ("KMSThrottling", False),
        ("InternalError", False),
    ],
)
def test_only_the_quota_of_sns_is_a_reason_to_slow_down(code, is_throttled):
    assert call_verdict(code, "", 400).is_throttled is is_throttled


@pytest.mark.parametrize(
    ("code", "message", "is_date_refused"),
    [
        (
            "SignatureDoesNotMatch",
            "Signature expired: 20261123T090000Z is now earlier than … (… - 15 min.)",
            True,
        ),
        ("SignatureDoesNotMatch", "Signature not yet current: 20261123T090000Z is still later than …", True),
        ("InvalidSignatureException", "Signature expired: …", True),
        ("RequestExpired", "Request has expired.", True),
        ("RequestTimeTooSkewed", "", True),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match", False),
        ("ExpiredToken", "The security token included in the request is expired", False),
    ],
)
def test_a_refused_date_is_told_from_a_wrong_signature(code, message, is_date_refused):
    verdict = call_verdict(code, message, 403)
    assert (verdict.outcome, verdict.is_unknown, verdict.is_date_refused) == (RETRY, KNOWN, is_date_refused)


def test_an_entry_the_reply_does_not_name_is_unknown():
    assert (NOT_NAMED.outcome, NOT_NAMED.is_unknown) == (RETRY, True)


def test_an_error_is_one_line_of_bounded_length():
    error = call_verdict("InvalidParameter", "line\nline\t" + "x" * 5000, 400).error
    assert "\n" not in error
    assert len(error) == MAX_ERROR_CHARS
