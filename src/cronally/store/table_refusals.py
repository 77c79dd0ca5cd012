"""What AWS's errors about a DynamoDB table mean, and what to do."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import NoCredentialsError, NoRegionError

from cronally.domain.aws_codes import DENIED, plain_code
from cronally.errors import StoreBusy, StoreError

_BUSY: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
        "TransactionConflictException",
        "LimitExceededException",
        "ResourceInUseException",
    }
)
_UNSIGNED: Final = frozenset(
    {
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "ExpiredToken",
        "InvalidSignatureException",
        "IncompleteSignatureException",
        "MissingAuthenticationTokenException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
    }
)


class NotAllowed(StoreError):  # noqa: N818 - says what was found
    """AWS does not allow it. Attributes: operation."""

    def __init__(self, operation: str, table: str, message: str) -> None:
        self.operation = operation
        super().__init__(
            f"AWS does not allow dynamodb:{operation} on the table {table!r} ({message}); "
            "'cronally doctor' prints the policy that is needed"
        )


class ConditionFailed(StoreError):  # noqa: N818 - says what was found
    """The item is not as the condition wants it."""


class UnknownOperation(StoreError):  # noqa: N818 - says what was found
    """A stand-in does not know it."""


class AlreadyThere(StoreError):  # noqa: N818 - says what was found
    """There is a table of that name."""


def busy(table: str, operation: str, reason: str) -> StoreBusy:
    """Return the error of a call that may succeed later."""
    return StoreBusy(f"the DynamoDB table {table!r} does not answer {operation}: {reason}")


def refusal(table: str, operation: str, code: str, message: str) -> StoreError:
    """Return what an error of AWS means. code, message: of its answer."""
    said = f"{code}: {message}" if message else code
    if code == "ConditionalCheckFailedException":
        return ConditionFailed(said)
    if operation == "CreateTable" and code == "ResourceInUseException":
        return AlreadyThere(said)
    if code == "UnknownOperationException":
        return UnknownOperation(said)
    if code == "ResourceNotFoundException":
        return StoreError(
            f"there is no DynamoDB table {table!r} in this account and region; create it with "
            f"'cronally store create dynamodb:{table}', or look at AWS_REGION and AWS_PROFILE"
        )
    if plain_code(code) in DENIED:
        return NotAllowed(operation, table, message)
    if code in _UNSIGNED:
        return StoreError(
            f"AWS does not accept the credentials for the DynamoDB table {table!r} ({said}); "
            "'aws sts get-caller-identity' must work for the user that runs cronally"
        )
    if code in _BUSY or not code or code.isdigit():
        return busy(table, operation, said or "it gave no reason")
    return StoreError(f"the DynamoDB table {table!r} refuses {operation}: {said}")


def unusable(table: str, exc: NoCredentialsError | NoRegionError) -> StoreError:
    """Return the error for what is missing before anything can be asked."""
    fix = (
        "no AWS region is set; set AWS_REGION to the table's"
        if isinstance(exc, NoRegionError)
        else "no AWS credentials were found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a "
        "role whose policy 'cronally doctor' prints"
    )
    return StoreError(f"the DynamoDB table {table!r} cannot be used: {fix}")
