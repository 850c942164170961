"""
Certificates for tests: an authority of its own, and what it says of whom.
"""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import trustme
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
_DAY = datetime.timedelta(days=1)


@define(eq=False)
class Authority:
    """
    Issues certificates, and writes PEM files into a folder.
    """

    folder: Path
    name: str = "ca"
    ca: trustme.CA = field(factory=trustme.CA)

    @property
    def file(self) -> Path:
        """Its own certificate."""
        path = self.folder / f"{self.name}.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return path

    def issued(self, *names: str, **validity: Any) -> Path:
        """
        A file with a key and its certificate for *names*, and those above it.
        """
        made = self.ca.issue_cert(*names, **validity)
        path = self.folder / f"{self.name}-{names[0].replace('*', 'any')}-{len(validity)}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def expired(self, *names: str) -> Path:
        now = datetime.datetime.now(datetime.timezone.utc)
        return self.issued(*names, not_before=now - 2 * _DAY, not_after=now - _DAY)

    def early(self, *names: str) -> Path:
        now = datetime.datetime.now(datetime.timezone.utc)
        return self.issued(*names, not_before=now + _DAY, not_after=now + 2 * _DAY)

    def nameless(self) -> Path:
        """
        A file with a key and a certificate that is for nobody.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        signing: Any = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .sign(signing, hashes.SHA256())
        )
        path = self.folder / f"{self.name}-nameless.pem"
        path.write_bytes(key_pem(key) + made.public_bytes(serialization.Encoding.PEM))
        return path


def key_pem(key: Any, password: bytes | None = None) -> bytes:
    """
    A private key in PEM.
    """
    encryption: Any = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    encoding, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem: bytes = key.private_bytes(encoding, kind, encryption)
    return pem


def server_context(
    identity: Path, *, asks: Path | None = None, newest: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """
    What a worker serves with.

    Args:
        identity: Its key and certificate.
        asks: Authorities whose certificates its clients must have; anybody if None.
        newest: The newest version of TLS that it knows.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    if asks is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(asks)
    if newest is not None:
        context.maximum_version = newest
    return context
