"""Makes the calls of ``domain.aws_calls``: the port of topic management, and its one implementation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from cronally.domain.topic import parse_topic_arn
from cronally.errors import AwsUnreachable, CredentialsInvalid
from cronally.sns.clients import UNANSWERED, Clients, unanswered_text
from cronally.sns.refusals import refusal

if TYPE_CHECKING:
    from cronally.domain.aws_calls import Call
    from cronally.sns.credentials import Credentials

_DEFAULT_REGION = "us-east-1"  # for services that have one place for all the world


class Caller(Protocol):
    """Somebody who makes calls of AWS."""

    async def do(self, call: Call) -> dict[str, Any]:
        """Return what AWS answers. Errors: AwsRefused says why and what to do; AwsUnreachable; CredentialsInvalid."""
        ...


class Aws:
    """A ``Caller`` through aiobotocore, with the settings of every AWS tool."""

    def __init__(
        self, credentials: Credentials, *, endpoint_url: str | None = None, is_stand_in: bool = False
    ) -> None:
        """endpoint_url: overrides what the environment and profile say. is_stand_in: it is moto, which has to be told the account."""
        self._credentials = credentials
        self._endpoint_url = endpoint_url
        self._is_stand_in = is_stand_in
        self._clients: dict[tuple[str, str], Clients] = {}

    @property
    def region(self) -> str | None:
        """The region that was set: AWS_REGION, AWS_DEFAULT_REGION or the profile's. Errors: CredentialsInvalid for a bad profile."""
        try:
            # botocore itself does not know AWS_REGION, which other AWS tools prefer.
            region: str | None = os.environ.get(
                "AWS_REGION"
            ) or self._credentials.session.get_config_variable("region")
        except BotoCoreError as exc:
            raise CredentialsInvalid(
                f"the AWS settings cannot be used: {exc}; correct AWS_PROFILE or the file"
            ) from exc
        return region

    async def do(self, call: Call) -> dict[str, Any]:
        try:
            client = await self._of(call).get(call.region or self.region or _DEFAULT_REGION)
            reply: dict[str, Any] = await getattr(client, xform_name(call.operation))(**call.parameters)
        except ClientError as exc:
            error = exc.response.get("Error", {})
            raise refusal(call, str(error.get("Code", "")), str(error.get("Message", ""))) from exc
        except NoCredentialsError as exc:
            raise CredentialsInvalid(str(exc)) from exc
        except UNANSWERED as exc:
            raise AwsUnreachable(call.action, unanswered_text(exc)) from exc
        return reply

    def _of(self, call: Call) -> Clients:
        account = (
            parse_topic_arn(call.resource).account if self._is_stand_in and call.service == "sns" else ""
        )
        key = (call.service, account)
        if key not in self._clients:
            self._clients[key] = Clients(
                self._credentials,
                service=call.service,
                endpoint_url=self._endpoint_url,
                headers={"x-moto-account-id": account} if account else None,
            )
        return self._clients[key]

    async def close(self) -> None:
        """Let go of the connections."""
        for clients in self._clients.values():
            await clients.close()
        self._clients.clear()
