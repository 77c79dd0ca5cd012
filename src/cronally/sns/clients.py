"""One aiobotocore client per region, made once and kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cronally.sns.credentials import Credentials

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0

# What a call raises when AWS does not answer, or something else does: the last three are what botocore makes of a bad URL,
# and of XML and HTML that it does not expect.
UNANSWERED = (BotoCoreError, ResponseParserError, OSError, ValueError, LookupError, AttributeError)


def unanswered_text(exc: BaseException) -> str:
    """Return what such an error says, on one line and not too long."""
    return " ".join(str(exc).split())[:300] or type(exc).__name__


class Clients:
    """Clients of one AWS service, one per region.

    The client settings of every AWS tool hold (``AWS_ENDPOINT_URL_SNS``, ``AWS_ENDPOINT_URL``, profile, proxies, CA bundle)
    unless *endpoint_url* names a server. botocore's own retries are off: the engine's know the deadline.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        service: str = "sns",
        endpoint_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        max_connections: int = 10,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        """headers: sent with every request."""
        self._credentials = credentials
        self._service = service
        self._endpoint_url = endpoint_url
        self._headers = dict(headers or {})
        self._config = AioConfig(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            max_pool_connections=max_connections,
            retries={"total_max_attempts": 1},
            warm_up_loader_caches=True,
            # A server named to us is on this machine: a proxy of the environment would not find it.
            **({"proxies": {}} if endpoint_url else {}),
        )
        self._makers: dict[str, asyncio.Task[Any]] = {}
        self._is_closed = False

    async def get(self, region: str) -> Any:
        """Return the region's client; the first call makes it. Errors: those of botocore; the next call tries again."""
        if self._is_closed:
            raise RuntimeError("the publisher is closed")
        maker = self._makers.get(region)
        if maker is None:
            maker = self._makers[region] = asyncio.create_task(self._make(region))
        try:
            # Shielded: whoever is cancelled while waiting must not take the client away from the others.
            return await asyncio.shield(maker)
        except Exception:
            if self._makers.get(region) is maker:
                del self._makers[region]
            raise

    async def _make(self, region: str) -> Any:
        context = self._credentials.session.create_client(
            self._service, region_name=region, endpoint_url=self._endpoint_url, config=self._config
        )
        client = await context.__aenter__()
        if self._headers:
            client.meta.events.register(f"before-call.{self._service}", self._add_headers)
        return client

    def _add_headers(self, params: dict[str, Any], **_: object) -> None:
        params["headers"].update(self._headers)

    async def close(self) -> None:
        """Close every client. ``get`` fails afterwards."""
        self._is_closed = True
        makers, self._makers = self._makers, {}
        for client in await asyncio.gather(*makers.values(), return_exceptions=True):
            if not isinstance(client, BaseException):
                await client.__aexit__(None, None, None)
