"""What AWS means when it refuses a call of a person's command: a sentence with what, where, and what to do.

Pure. What it means for a fire is ``outcome``'s to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cronally.domain.aws_codes import DENIED, plain_code
from cronally.errors import AwsInputRefused, AwsRefused
from cronally.sns.outcome import CREDENTIALS, is_about_the_date

if TYPE_CHECKING:
    from cronally.domain.aws_calls import Call

_MAX_SAID_CHARS: Final = 300

# SNS, SQS, Lambda, IAM API References, errors; without "Exception", and without what SQS puts before.
_DENIED: Final = DENIED | {"AuthorizationError", "NotAuthorized"}
_ABSENT: Final = frozenset(
    {"NotFound", "NonExistentQueue", "QueueDoesNotExist", "ResourceNotFound", "NoSuchEntity"}
)
_CREDENTIALS: Final = CREDENTIALS | {"InvalidToken"}
_CLOCK: Final = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_SIGNATURE: Final = frozenset({"SignatureDoesNotMatch", "InvalidSignature", "IncompleteSignature"})
_THROTTLED: Final = frozenset({"TooManyRequests", "RequestLimitExceeded", "SlowDown"})
_INPUT: Final = frozenset(
    {
        "InvalidParameter",
        "InvalidParameterValue",
        "ParameterValueInvalid",
        "ValidationError",
        "Validation",
        "InvalidAttributeValue",
        "InvalidAttributeName",
        "MissingParameter",
    }
)


def refusal(call: Call, code: str, message: str) -> AwsRefused:
    """Return the error that says why AWS refused *call*. code, message: AWS's own."""
    name = plain_code(code)
    said = _said(code, message)
    what = f"{call.action} on {call.resource}" if call.resource else call.action
    if name in _DENIED:
        reason = (
            f"these AWS credentials may not do {what}; allow {call.action} there to whom AWS names {said}"
        )
    elif name in _ABSENT:
        reason = f"there is no {_absent(call)} {said}"
    elif name in _CREDENTIALS:
        reason = f"AWS does not know these credentials, or they have expired; renew them, or name others with AWS_PROFILE {said}"
    elif name in _CLOCK or (name in _SIGNATURE and is_about_the_date(message)):
        reason = f"AWS refuses the date of a request, because this machine's clock is wrong; set it {said}"
    elif name in _SIGNATURE:
        reason = f"AWS refuses the signature, because the secret key does not belong to the access key; correct it {said}"
    elif "throttl" in code.lower() or name in _THROTTLED:
        reason = f"AWS takes no more calls of this kind for now; run it again in a moment {said}"
    elif name in _INPUT:
        return AwsInputRefused(
            f"AWS does not accept what {what} was given; correct it {said}",
            action=call.action,
            resource=call.resource,
            code=code,
        )
    elif name.startswith("KMS"):
        reason = f"the KMS key of {call.resource} cannot be used; see that it is enabled, and that its policy allows it {said}"
    else:
        reason = f"AWS refused {what}; see what it says, and run it again {said}"
    return AwsRefused(reason, action=call.action, resource=call.resource, code=code)


def _absent(call: Call) -> str:
    if "SubscriptionArn" in call.parameters:
        return f"subscription {call.resource} any more; run 'cronally topics subscribe' again"
    if call.service == "sns":
        name = call.resource.rpartition(":")[2]
        fifo = " --fifo" if name.endswith(".fifo") else ""
        make = f"'cronally topics create {name}{fifo} --region {call.region}'"
        return f"topic {call.resource} in the account of these credentials; make it with {make}, or correct the ARN"
    if call.service == "sqs":
        return f"queue {call.resource}, or these credentials may not see it; make it with 'aws sqs create-queue', or correct the ARN"
    return f"{call.resource}; correct its name, region and account"


def is_denied(error: AwsRefused) -> bool:
    """Whether it was refused for want of a permission."""
    return plain_code(error.code) in _DENIED


def is_absent(error: AwsRefused) -> bool:
    """Whether it was refused because what it is about is not there."""
    return plain_code(error.code) in _ABSENT


def _said(code: str, message: str) -> str:
    text = " ".join(message.split())
    cut = text if len(text) <= _MAX_SAID_CHARS else f"{text[:_MAX_SAID_CHARS]}…"
    return f"({code}: {cut})" if cut else f"({code})"
