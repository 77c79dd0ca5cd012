"""What an answer of SNS, or the lack of one, means for an entry (design §6, outcome classes).

Pure functions. Rule 1: an error that may pass by itself is RETRY; one that somebody must repair is HOLD; REJECTED is said
only when SNS names the message itself as the fault. An error nobody has heard of is HOLD: it loses nothing.
Rule 2: ``is_unknown`` unless it is certain that SNS did not take the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import ClientConnectorError
from botocore import exceptions as boto

from cronally.engine.ports import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Mapping

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
# botocore's lists of throttling codes, and KMSThrottling, which is in none of them.
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
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "InvalidClientTokenId",
        "UnrecognizedClient",
        "InvalidAccessKeyId",
        "TokenRefreshRequired",
    }
)
_CLOCK = frozenset({"SignatureDoesNotMatch", "InvalidSignature", "RequestExpired", "RequestTimeTooSkewed"})
_SERVER = frozenset(
    {"InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "Unavailable"}
)


class Verdict(NamedTuple):
    """What became of an attempt, for every entry it held.

    Fields: as in ``Outcome``. may_be_one_entry: the whole call failed, perhaps for the sake of one entry; sent singly
        the others may go. are_credentials_refused: new credentials may help.
    """

    outcome: OutcomeClass
    error: str | None = None
    is_unknown: bool = False
    may_be_one_entry: bool = False
    are_credentials_refused: bool = False


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
        return Verdict(OutcomeClass.RETRY, error)
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


def reply_verdicts(reply: object, ids: list[str]) -> list[Verdict]:
    """Return a verdict for each of *ids* from a PublishBatch reply as aiobotocore parsed it; unnamed ones are unknown."""
    verdicts: dict[str, Verdict] = {}
    for member in _members(reply, "Failed"):
        verdicts[str(member.get("Id"))] = entry_verdict(
            str(member.get("Code") or "Unknown"),
            str(member.get("Message") or ""),
            is_sender_fault=member.get("SenderFault") is True,
        )
    for member in _members(reply, "Successful"):
        verdicts[str(member.get("Id"))] = PUBLISHED
    return [verdicts.get(id_, NOT_NAMED) for id_ in ids]


def exception_verdict(exc: BaseException) -> Verdict:
    """Return what an exception out of a call means for every entry of it."""
    if isinstance(exc, boto.ClientError):
        return _client_error(exc)
    text = _written(type(exc).__name__, str(exc))
    if isinstance(exc, boto.ParamValidationError):  # botocore's own check: nothing was sent
        return Verdict(OutcomeClass.REJECTED, text, may_be_one_entry=True)
    if isinstance(exc, _CREDENTIAL_ERRORS):
        fix = "see 'aws sts get-caller-identity' for what the AWS tools find"
        return Verdict(OutcomeClass.RETRY, f"{text}; {fix}", are_credentials_refused=True)
    if isinstance(exc, _CONFIGURATION_ERRORS):
        return Verdict(OutcomeClass.HOLD, text)
    if isinstance(exc, _NEVER_SENT):
        return Verdict(OutcomeClass.RETRY, text)
    if isinstance(exc, boto.EndpointConnectionError):
        # aiobotocore says this of a refused connection and also of one that was reset with the request on it.
        return Verdict(OutcomeClass.RETRY, text, is_unknown=not _failed_to_connect(exc))
    if isinstance(exc, TimeoutError):
        return Verdict(OutcomeClass.RETRY, "TimeoutError: no answer in time", is_unknown=True)
    return Verdict(OutcomeClass.RETRY, text, is_unknown=True)


_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.UnknownCredentialError,
    boto.RefreshWithMFAUnsupportedError,
    boto.MetadataRetrievalError,
)
_CONFIGURATION_ERRORS = (
    boto.ProfileNotFound,
    boto.InvalidRegionError,
    boto.UnknownRegionError,
    boto.NoRegionError,
    boto.InvalidEndpointConfigurationError,
    boto.EndpointProviderError,
    boto.InvalidProxiesConfigError,
)
_NEVER_SENT = (boto.ConnectTimeoutError, boto.SSLError, boto.ProxyConnectionError)


def _known(code: str, error: str) -> Verdict | None:
    name = code.rpartition("#")[2].removesuffix("Exception").removesuffix("Error")
    names = {code, name, f"{name}Error"}
    if "throttl" in code.lower() or names & _THROTTLED:
        return Verdict(OutcomeClass.RETRY, error)
    if names & _CREDENTIALS:
        return Verdict(OutcomeClass.RETRY, error, are_credentials_refused=True)
    if names & _CLOCK:
        return Verdict(OutcomeClass.RETRY, error)
    if names & _SERVER or name == "RequestTimeout":
        return Verdict(OutcomeClass.RETRY, error, is_unknown=True)
    if names & _HOLD:
        return Verdict(OutcomeClass.HOLD, error)
    if names & _REJECTED:
        return Verdict(OutcomeClass.REJECTED, error, may_be_one_entry=True)
    return None


def _client_error(exc: Any) -> Verdict:
    response: Mapping[str, Any] = exc.response
    error = response.get("Error") or {}
    status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    return call_verdict(
        str(error.get("Code") or "Unknown"),
        str(error.get("Message") or ""),
        status if isinstance(status, int) else 0,
    )


def _failed_to_connect(exc: Any) -> bool:
    cause = exc.kwargs.get("error")
    return isinstance(cause, ClientConnectorError) or (
        isinstance(cause, OSError) and type(cause).__name__ in {"gaierror", "ConnectionRefusedError"}
    )


def _members(reply: object, key: str) -> list[Mapping[str, Any]]:
    members = reply.get(key) if isinstance(reply, dict) else None
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _written(code: str, message: str) -> str:
    return f"{code}: {' '.join(message.split())}"[:MAX_ERROR_CHARS] if message else code
