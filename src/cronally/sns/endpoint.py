"""Where the SNS of a region is, and how to get there: what every AWS tool would do here.

Endpoint, user agent, proxy and CA bundle are botocore's to say; what it says is asked once per region.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from botocore import exceptions as boto
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from cronally.engine.ports import OutcomeClass
from cronally.sns.clients import Clients
from cronally.sns.dialer import Proxy, Route
from cronally.sns.outcome import Verdict
from cronally.sns.request import Site

if TYPE_CHECKING:
    from cronally.sns.credentials import Credentials

_CONFIGURATION_ERRORS = (
    boto.ProfileNotFound,
    boto.InvalidRegionError,
    boto.UnknownRegionError,
    boto.NoRegionError,
    boto.InvalidEndpointConfigurationError,
    boto.EndpointProviderError,
    boto.InvalidProxiesConfigError,
)
_PORTS = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """The SNS of a region: what its requests say, and the way to it."""

    site: Site
    route: Route


class NoEndpoint(Exception):  # noqa: N818 - what happened, not whose fault it is
    """There is no endpoint for a region. verdict: what that means for the entries."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.error)
        self.verdict = verdict


class Endpoints:
    """The endpoints of the regions, each found once."""

    def __init__(self, credentials: Credentials, *, endpoint_url: str | None = None) -> None:
        """endpoint_url: overrides what the environment and profile say, proxies included."""
        self._session = credentials.session
        self._clients = Clients(credentials, endpoint_url=endpoint_url)
        self._found: dict[str, Endpoint] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._making = asyncio.Lock()

    async def get(self, region: str) -> Endpoint:
        """Return the endpoint of *region*. Errors: NoEndpoint; the next call tries again."""
        found = self._found.get(region)
        if found is None:
            try:
                found = self._found[region] = await self._find(region)
            except (boto.BotoCoreError, OSError, ValueError, RuntimeError) as exc:
                is_permanent = isinstance(exc, (*_CONFIGURATION_ERRORS, _SettingError))
                outcome = OutcomeClass.HOLD if is_permanent else OutcomeClass.RETRY
                raise NoEndpoint(Verdict(outcome, f"{type(exc).__name__.lstrip('_')}: {exc}")) from exc
        return found

    async def _find(self, region: str) -> Endpoint:
        client = await self._clients.get(region)
        url, user_agent = await _ask(client, region)
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or _PORTS[parts.scheme]
        written = f"[{host}]" if ":" in host else host
        if port != _PORTS[parts.scheme]:
            written = f"{written}:{port}"
        path = parts.path or "/"
        tls = await self._context() if parts.scheme == "https" else None
        proxy = await self._proxy(client, url, parts.scheme)
        target, extra = path, f"User-Agent: {user_agent}\r\nAccept-Encoding: identity\r\n"
        if proxy is not None and tls is None:
            target = f"http://{written}{path}"
            if proxy.authorization:
                extra += f"Proxy-Authorization: {proxy.authorization}\r\n"
        return Endpoint(Site(region, written, path, target, extra), Route(host, port, tls, proxy))

    async def _proxy(self, client: Any, url: str, scheme: str) -> Proxy | None:
        """Return the proxy to use, by botocore's rules: the client's setting, else HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""
        proxies = client.meta.config.proxies
        if proxies is None:
            proxies = get_environ_proxies(url)
        given = proxies.get(scheme)
        if not given:
            return None
        parts = urlsplit(given if "://" in given else f"http://{given.removeprefix('//')}")
        if parts.scheme not in _PORTS or not parts.hostname:
            raise _SettingError(
                f"the proxy for {scheme} must be written as http://HOST:PORT or https://HOST:PORT"
            )
        authorization = None
        if parts.username is not None and parts.password is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password)}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        tls = await self._context() if parts.scheme == "https" else None
        return Proxy(parts.hostname, parts.port or _PORTS[parts.scheme], tls, authorization)

    async def _context(self) -> ssl.SSLContext:
        """Return what TLS trusts: AWS_CA_BUNDLE or the profile's ca_bundle, REQUESTS_CA_BUNDLE, else botocore's own."""
        given = self._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        bundle = given or get_cert_path(True)
        async with self._making:  # one context for all regions: they share connections only if they share it
            if bundle not in self._contexts:
                try:
                    # Off the loop: there are 150 certificates in it.
                    self._contexts[bundle] = await asyncio.to_thread(_context, bundle)
                except OSError as exc:
                    raise _SettingError(f"the CA bundle {bundle} cannot be used: {exc}") from exc
        return self._contexts[bundle]

    async def close(self) -> None:
        await self._clients.close()


class _SettingError(ValueError):
    """A setting that nothing but a change of it can help."""


def _context(bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=bundle)
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Asked(Exception):  # noqa: N818 - it ends a call whose request is all we want
    def __init__(self, url: str, user_agent: str) -> None:
        super().__init__(url)
        self.url, self.user_agent = url, user_agent


async def _ask(client: Any, region: str) -> tuple[str, str]:
    """Return URL and user agent of the *client*'s publish_batch: it makes a request, and we keep it from being sent."""

    def stop(request: Any, **_: object) -> None:
        agent = request.headers.get("User-Agent", "")
        raise _Asked(request.url, agent.decode() if isinstance(agent, bytes) else agent)

    client.meta.events.register_first("request-created.sns.PublishBatch", stop)
    try:
        await client.publish_batch(
            TopicArn=f"arn:aws:sns:{region}:123456789012:any",
            PublishBatchRequestEntries=[{"Id": "0", "Message": "any"}],
        )
    except _Asked as asked:
        return asked.url, asked.user_agent
    finally:
        client.meta.events.unregister("request-created.sns.PublishBatch", stop)
    raise RuntimeError("botocore does not say where SNS is")
