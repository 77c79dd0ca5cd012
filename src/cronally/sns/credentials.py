"""AWS credentials: the standard chain, resolved ahead and refreshed in the background, never while publishing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiobotocore.credentials import AioCredentials, AioRefreshableCredentials
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from cronally.actions import about
from cronally.engine.figures import CredentialsState
from cronally.errors import CredentialsInvalid
from cronally.instants import UtcMs, from_datetime

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.sns.request import Key

REFRESH_S = 60.0  # botocore renews what expires within 15 min; looking once a minute finds that early enough
RESOLVE_TIMEOUT_S = 20.0  # an STS call by the chain may take its time; a start must not hang
RELOAD_PAUSE_S = (
    5.0  # refused attempts come in bursts; the chain (a file, STS, IMDS) is asked once for all of them
)

_log = logging.getLogger(__name__)


class Credentials:
    """What signs our calls.

    ``start`` resolves the chain of every AWS tool (environment, profile, SSO, process, container, instance), ``run`` keeps
    the result fresh; clients made with ``session`` sign with the last one held and never wait for the chain.

    Attributes: session: of aiobotocore, to make clients with. error: why the last refresh failed, None when all is well.
    """

    def __init__(self, clock: Clock, *, profile: str | None = None) -> None:
        """profile: as in ``AWS_PROFILE``, which is obeyed when it is None."""
        self.error: str | None = None
        self.session = AioSession(profile=profile)
        self._clock = clock
        self._chain: Any = None
        self._source: Any = None
        self._held = _Held()
        self._wanted = asyncio.Event()

    @classmethod
    def fixed(cls, clock: Clock, access_key: str, secret_key: str) -> Credentials:
        """Return credentials that never change and never look at the chain: the stand-in's, and those of tests."""
        credentials = cls(clock)
        credentials._hold(ReadOnlyCredentials(access_key, secret_key, None, None))
        credentials._serve_held()
        return credentials

    @property
    def is_resolved(self) -> bool:
        """Whether there is anything to sign with."""
        return self._held.frozen is not None

    @property
    def frozen(self) -> Key | None:
        """What signs now; another object once it has changed. None while there is nothing to sign with."""
        return self._held.frozen

    @property
    def source(self) -> str | None:
        """Where in the chain they were found, as botocore calls it: ``env``, ``iam-role``; None before that."""
        return None if self._source is None else str(self._source.method)

    @property
    def is_renewed(self) -> bool:
        """Whether the chain gets others before they expire."""
        return isinstance(self._source, AioRefreshableCredentials) and self.source != "env"

    @property
    def expires_at(self) -> UtcMs | None:
        """When they expire, as far as the chain knows."""
        at = getattr(self._source, "_expiry_time", None)  # botocore tells nobody
        return None if at is None else from_datetime(at)

    def state(self) -> CredentialsState:
        """Return how they are."""
        return CredentialsState(self.is_resolved and self.error is None, self.expires_at)

    async def start(self) -> None:
        """Resolve the chain. Errors: CredentialsInvalid says what to do; ``run`` goes on trying all the same."""
        await self._refresh(reload=True)
        if self.error is not None:
            raise CredentialsInvalid(self.error)

    async def run(self) -> None:
        """Keep the credentials fresh until cancelled. A failure keeps the old ones and shows in ``error``."""
        while True:
            is_refused = await self._woken_within(REFRESH_S)
            await self._refresh(reload=is_refused or self._source is None)
            if is_refused:
                await self._clock.sleep(RELOAD_PAUSE_S)

    def refresh_soon(self) -> None:
        """Have ``run`` ask the whole chain again: AWS refused what we signed with."""
        self._wanted.set()

    async def _woken_within(self, duration_s: float) -> bool:
        tasks = {
            asyncio.ensure_future(self._wanted.wait()),
            asyncio.ensure_future(self._clock.sleep(duration_s)),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        is_woken = self._wanted.is_set()
        self._wanted.clear()
        return is_woken

    async def _refresh(self, *, reload: bool) -> None:
        if self._chain is None and self.is_resolved:  # fixed
            return
        was = self.error
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                await self._resolve(reload=reload)
        except (BotoCoreError, ClientError, OSError, RuntimeError, ValueError) as exc:
            self.error = _explained(exc)
        else:
            self.error = None
        if self.error != was and self.error is not None:
            _log.warning(
                "%s; fires are kept and retried until then",
                self.error,
                extra=about("credentials.unusable", error=str(self.error)),
            )

    async def _resolve(self, *, reload: bool) -> None:
        if self._chain is None:
            self._chain = self.session.get_component("credential_provider")
            self._serve_held()
        if reload:
            found = await self._chain.load_credentials()
            if found is None:
                raise NoCredentialsError
            self._source = found
        self._hold(await self._source.get_frozen_credentials())

    def _hold(self, frozen: Any) -> None:
        if frozen != self._held.frozen:  # whoever has signed with equal ones need not sign again
            self._held.frozen = frozen

    def _serve_held(self) -> None:
        self.session.register_component("credential_provider", _HeldProvider(self._held))


class _Held(AioCredentials):  # type: ignore[misc] # aiobotocore has no types
    """Credentials whose value another task replaces."""

    def __init__(self) -> None:
        super().__init__("", "")
        self.frozen: ReadOnlyCredentials | None = None

    async def get_frozen_credentials(self) -> Any:
        if self.frozen is None:
            raise NoCredentialsError
        return self.frozen


class _HeldProvider:
    def __init__(self, held: _Held) -> None:
        self._held = held

    async def load_credentials(self) -> _Held:
        return self._held


def _explained(exc: Exception) -> str:
    if isinstance(exc, NoCredentialsError):
        return (
            "no AWS credentials were found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or give the machine a role that allows sns:Publish ('serve --local' needs none)"
        )
    reason = f"no answer within {RESOLVE_TIMEOUT_S:g} s" if isinstance(exc, TimeoutError) else str(exc)
    return (
        f"the AWS credentials cannot be used: {reason}; "
        "'aws sts get-caller-identity' must work for the user that runs cronally"
    )
