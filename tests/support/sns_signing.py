"""What SNS signs of a message to a URL, and how, with a key of our own.

Source: SNS Developer Guide, "Verifying the signatures of Amazon SNS messages".
"""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"1": hashes.SHA1, "2": hashes.SHA256}
_CONFIRMATION = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
_SIGNED = {
    "Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


def text_to_sign(message: Mapping[str, object]) -> str:
    """Return what the signature of *message* is made of; its attributes are no part of it."""
    keys = [key for key in _SIGNED[str(message["Type"])] if key != "Subject" or "Subject" in message]
    return "".join(f"{key}\n{message[key]}\n" for key in keys)


@dataclass(frozen=True)
class Signer:
    """A key, and the certificate by which others check what it signs. pem: that, as SNS hands it out."""

    key: rsa.RSAPrivateKey
    pem: bytes

    @classmethod
    @lru_cache(maxsize=1)  # a key takes longer to make than a test
    def make(cls) -> Signer:
        """Return the one of this process."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate.public_bytes(serialization.Encoding.PEM))

    def signature(self, message: Mapping[str, object], version: str) -> str:
        """Return the ``Signature`` of *message*. version: 1 for SHA-1, 2 for SHA-256."""
        text = text_to_sign(message).encode()
        return base64.b64encode(self.key.sign(text, padding.PKCS1v15(), _HASHES[version]())).decode()
