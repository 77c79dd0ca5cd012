"""What an answer of SNS, or the lack of one, means for an entry (design §6, outcome classes).

Pure functions. Rule 1: an error that may pass by itself is RETRY; one that somebody must repair is HOLD; REJECTED is said
only when SNS names the message itself as the fault. An error nobody has heard of is HOLD: it loses nothing.
Rule 2: ``is_unknown`` unless it is certain that SNS did not take the message.
"""

from __future__ import annotations

from typing import NamedTuple

from cronally.engine.ports import OutcomeClass

MAX_ERROR_CHARS = 500  # one line of a listing; SNS's own are below 300

# SNS API Reference, Publish and PublishBatch, errors; the spellings with "Exception" are those of the JSON services.
_HOLD = frozenset(
    {
        "NotFound",
        "AuthorizationError",
        "AccessDenied",
        "UnauthorizedOperation",
        "InvalidSecurity",
        "KMSDisabled",
        "KMSInvalidState",
        "KMSNotFound",
        "KMSAccessDenied",
        "KMSOptInRequired",
        "OptInRequired",
        "EndpointDisabled",
        "PlatformApplicationDisabled",
        "MissingAuthenticationToken",
        "IncompleteSignature",
        "InvalidAction",
    }
)
_REJECTED = frozenset(
    {
        "InvalidParameter",
        "InvalidParameterValue",
        "ParameterValueInvalid",
        "ValidationError",
        "Validation",
        "BatchRequestTooLong",
        "InvalidBatchEntryId",
        "MissingParameter",
    }
)
# botocore's lists of throttling codes; whatever has "throttl" in it is one, too.
_THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "LimitExceeded",
        "TooManyRequests",
        "SlowDown",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceeded",
        "TransactionInProgress",
    }
)
CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "InvalidClientTokenId",
        "UnrecognizedClient",
        "InvalidAccessKeyId",
        "TokenRefreshRequired",
    }
)
_CLOCK = frozenset({"SignatureDoesNotMatch", "InvalidSignature", "RequestExpired", "RequestTimeTooSkewed"})
_SIGNATURE = frozenset({"SignatureDoesNotMatch", "InvalidSignature"})
# "Signature expired: … is now earlier than …" and "Signature not yet current: … is still later than …"; any other text
# of these two codes is of a wrong secret.
_OF_DATE = ("signature expired", "not yet current")
_SERVER = frozenset(
    {"InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "Unavailable"}
)


class Verdict(NamedTuple):
    """What became of an attempt, for every entry it held.

    Fields: as in ``Outcome``. may_be_one_entry: the whole call failed, perhaps for the sake of one entry; sent singly
        the others may go. are_credentials_refused: new credentials may help. is_throttled: SNS takes fewer messages than
        it is given. is_date_refused: SNS has another idea of the time.
    """

    outcome: OutcomeClass
    error: str | None = None
    is_unknown: bool = False
    may_be_one_entry: bool = False
    are_credentials_refused: bool = False
    is_throttled: bool = False
    is_date_refused: bool = False


PUBLISHED = Verdict(OutcomeClass.PUBLISHED)
NOT_NAMED = Verdict(OutcomeClass.RETRY, "the reply of SNS does not name this entry", is_unknown=True)


def call_verdict(code: str, message: str, status: int) -> Verdict:
    """Return what an error answer to a whole call means. code, message: SNS's. status: of the HTTP reply."""
    error = _written(code, message)
    verdict = _known(code, error)
    if verdict is not None:
        # Any other code with a 5xx comes from something in between, which cannot know what SNS did.
        return verdict
    if status == 429:
        return Verdict(OutcomeClass.RETRY, error, is_throttled=True)
    if status >= 500 or status == 408 or status < 400:
        return Verdict(OutcomeClass.RETRY, error, is_unknown=True)
    # 403 and 404 concern the caller and the topic; only another 4xx may be about what one entry says.
    return Verdict(OutcomeClass.HOLD, error, may_be_one_entry=status not in {401, 403, 404})


def entry_verdict(code: str, message: str, *, is_sender_fault: bool) -> Verdict:
    """Return what a member of ``Failed`` in a PublishBatch reply means for its entry."""
    error = _written(code, message)
    verdict = _known(code, error)
    if verdict is None:
        verdict = Verdict(OutcomeClass.REJECTED if is_sender_fault else OutcomeClass.RETRY, error)
    return verdict._replace(may_be_one_entry=False)


def _known(code: str, error: str) -> Verdict | None:
    name = code.rpartition("#")[2].removesuffix("Exception").removesuffix("Error")
    names = {code, name, f"{name}Error"}
    if "throttl" in code.lower() or names & _THROTTLED:
        # A KMS key has a quota of its own, which says nothing of the other topics of the region.
        return Verdict(OutcomeClass.RETRY, error, is_throttled=not name.startswith("KMS"))
    if names & CREDENTIALS:
        return Verdict(OutcomeClass.RETRY, error, are_credentials_refused=True)
    if names & _CLOCK:
        return Verdict(
            OutcomeClass.RETRY, error, is_date_refused=name not in _SIGNATURE or is_about_the_date(error)
        )
    if names & _SERVER or name == "RequestTimeout":
        return Verdict(OutcomeClass.RETRY, error, is_unknown=True)
    if names & _HOLD:
        return Verdict(OutcomeClass.HOLD, error)
    if names & _REJECTED:
        return Verdict(OutcomeClass.REJECTED, error, may_be_one_entry=True)
    return None


def is_about_the_date(error: str) -> bool:
    """Whether what AWS says of a refused signature is about its date, not about the secret key."""
    text = error.lower()
    return any(words in text for words in _OF_DATE)


def _written(code: str, message: str) -> str:
    return f"{code}: {' '.join(message.split())}"[:MAX_ERROR_CHARS] if message else code
