"""
TLS towards workers: whose certificates count, which one the router shows, and what went wrong.

A worker's certificate is verified: its chain, its time, and that it is for the host in the
worker's URL.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from sgl_droute.errors import NotConnected, UntrustedWorker

# What OpenSSL finds wrong with certificates (X509_V_ERR_...).
_NOBODY = "is signed by nobody who is trusted (--worker-ca)"
_VERDICTS = {
    2: _NOBODY,
    9: "is not valid yet",
    10: "has expired",
    18: _NOBODY,
    19: _NOBODY,
    20: _NOBODY,
    21: _NOBODY,
    26: "is not one for a server",
}


@frozen(eq=False)
class Shown:
    """
    A certificate that proves who the router is.

    Attributes:
        certificate: Its own.
        key: The private key of *certificate*.
        chain: Certificates between *certificate* and one that workers trust.
    """

    certificate: crypto.X509
    key: crypto.PKey = field(repr=False)
    chain: tuple[crypto.X509, ...] = ()


@frozen(eq=False)
class WorkerTLS:
    """
    What TLS connections to workers begin with.

    Args:
        trusted: Certificates that workers' must be signed by; those of the system if None.
        shown: What workers see that ask who the router is.
    """

    trusted: tuple[Certificate, ...] | None = None
    shown: Shown | None = None
    _options: CertificateOptions = field(init=False, repr=False)

    @_options.default
    def _made(self) -> CertificateOptions:
        trusted, shown = self.trusted, self.shown
        root: Any = platformTrust() if trusted is None else trustRootFromCertificates(trusted)
        if shown is None:
            return CertificateOptions(trustRoot=root)
        return CertificateOptions(
            privateKey=shown.key,
            certificate=shown.certificate,
            extraCertChain=list(shown.chain),
            trustRoot=root,
        )

    @classmethod
    def read(cls, ca: str = "", certificate: str = "") -> WorkerTLS:
        """
        From two files in PEM; an empty name stands for none.

        Raises:
            ValueError: One line that names the option and what is wrong with its file.
        """
        trusted = _read("--worker-ca", ca, _trusted)
        shown = _read("--worker-certificate", certificate, _shown)
        # What OpenSSL does not like of them is told now, and not by each connection.
        _read("--worker-ca", ca, lambda _: cls(trusted)._options.getContext())
        made = cls(trusted, shown)
        _read("--worker-certificate", certificate, lambda _: made._options.getContext())
        return made

    def connection_to(self, host: str) -> Verifying:
        """
        What makes one connection to *host*, a name or an address.
        """
        return Verifying(self._options, host)


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class Verifying:
    """
    Makes one connection, and knows why the certificate that comes is none for it.

    It is what `optionsForClientTLS` gives, with three differences: that one takes a certificate
    without any name for every host, refuses hosts with an underscore, and does not tell why.

    Args:
        options: Whose certificates count.
        host: Whose certificate it must be.
    """

    options: CertificateOptions
    host: str
    _why: str = field(default="", init=False)

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = SSL.Connection(self.options.getContext(), None)
        if not _is_address(self.host):
            connection.set_tlsext_host_name(self.host.encode("ascii"))
        connection.set_verify(SSL.VERIFY_PEER, self._judge)
        return connection

    def failed(self, worker: str, problem: BaseException) -> NotConnected:
        """
        What *problem*, with which the handshake ended, is for *worker*.
        """
        if self._why:
            return UntrustedWorker(worker, f"its certificate {self._why}")
        return NotConnected(worker, reason_of(problem))

    def _judge(
        self, _: object, certificate: crypto.X509, number: int, depth: int, good: int
    ) -> bool:
        """
        Whether to go on, of one certificate in the chain; the worker's own comes last, at depth 0.
        """
        if not good:
            usual = f"does not hold (X509_V_ERR {number})"
            self._why = self._why or _VERDICTS.get(number, usual)
            return False
        if depth == 0 and not _is_for(certificate, self.host):
            self._why = f"is not one for {self.host}"
        return not self._why


def _is_for(certificate: crypto.X509, host: str) -> bool:
    try:
        wanted = IPAddress_ID(host) if _is_address(host) else DNS_ID(host)
        verify_service_identity(extract_patterns(certificate), [wanted], [])
    except (CertificateError, VerificationError, ValueError):
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def reason_of(problem: BaseException | None) -> str:
    """
    Why a connection ended, in words for one line.
    """
    stack = problem.args[0] if isinstance(problem, SSL.Error) and problem.args else None
    if not (isinstance(stack, list) and stack):
        return str(problem).rstrip(".")
    reason = str(stack[-1][-1])
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        return f"it does not take the router's certificate (--worker-certificate): {reason}"
    if "alert handshake failure" in reason:
        return f"it may want a certificate (--worker-certificate): {reason}"
    return f"TLS: {reason}"


def _read(option: str, path: str, read: Callable[[bytes], Any]) -> Any:
    if not path:
        return None
    try:
        return read(Path(path).read_bytes())
    except OSError as problem:
        raise ValueError(f"{option}: {path}: {problem.strerror}") from problem
    except SSL.Error as problem:
        raise ValueError(f"{option}: {path}: {reason_of(problem)}") from problem
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{option}: {path}: {problem}") from problem


def _trusted(data: bytes) -> tuple[Certificate, ...]:
    return tuple(Certificate(each) for each in _certificates(data))


def _shown(data: bytes) -> Shown:
    own, *chain = _certificates(data)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ValueError("its key is encrypted, and nobody is there to ask") from None
    except ValueError:
        raise ValueError("there is no private key in it") from None
    if key.public_key() != own.to_cryptography().public_key():
        raise ValueError("its key is not that of its first certificate")
    pair: Any = key  # of a kind that has certificates, or it would not have been that of one
    return Shown(own, crypto.PKey.from_cryptography_key(pair), tuple(chain))


def _certificates(data: bytes) -> list[crypto.X509]:
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ValueError("there is no certificate in it") from None
    return [crypto.X509.from_cryptography(each) for each in found]
