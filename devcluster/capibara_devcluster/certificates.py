"""A cluster's own certificate authority and the certificates that its components need."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from capibara_devcluster import files

_LIFETIME: Final = dt.timedelta(days=365)
_CLOCK_SKEW: Final = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a certificate speaks for.

    Args:
        common_name: the user to Kubernetes.
        organization: the group to Kubernetes; empty for none.
        names: DNS names and IP addresses that a server answers under.
    """

    common_name: str
    organization: str = ""
    names: tuple[str, ...] = ()


class Authority:
    """A certificate authority in a folder; created at first use, then kept."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate = folder / f"{name}.crt"
        self._key_file = folder / f"{name}.key"
        self._folder = folder
        if not (self.certificate.is_file() and self._key_file.is_file()):
            self._create(name)
        loaded = serialization.load_pem_private_key(self._key_file.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self._key_file} holds no elliptic-curve key")
        self._key = loaded
        self._issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())

    @property
    def key(self) -> Path:
        """The authority's private key."""
        return self._key_file

    def issue(self, name: str, subject: Subject) -> tuple[Path, Path]:
        """Write a fresh certificate for servers and clients; returns its and its key's path."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_x509_name(subject), self._issuer.subject, key.public_key())
        builder = builder.add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        ).add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
        if subject.names:
            builder = builder.add_extension(_alternative_names(subject.names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        certificate, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files.write(key_file, _pem(key))
        files.write(certificate, signed.public_bytes(serialization.Encoding.PEM))
        return certificate, key_file

    def _create(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"capibara-{name}")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        signed = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        files.write(self._key_file, _pem(key))
        files.write(self.certificate, signed.public_bytes(serialization.Encoding.PEM))


def service_account_key(folder: Path) -> tuple[Path, Path]:
    """The key pair that signs service account tokens, created at first use: private, public."""
    private, public = folder / "service-account.key", folder / "service-account.pub"
    if not (private.is_file() and public.is_file()):
        key = ec.generate_private_key(ec.SECP256R1())
        files.write(
            public,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )
        files.write(private, _pem(key))
    return private, public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _x509_name(subject: Subject) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)]
    if subject.organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.organization))
    return x509.Name(attributes)


def _alternative_names(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(name) for name in names])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
