"""A certificate authority of the tests' own: what a TLS server and its clients need, as PEM files in one folder."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@attrs.frozen
class Certificates:
    """Where the files are. ``*_pair``: key, certificate and chain in one file, as Kafka's PEM key stores want it."""

    ca: Path
    server_pair: Path
    client_cert: Path
    client_key: Path


def make(folder: Path) -> Certificates:
    """An authority, a server certificate for 127.0.0.1 and localhost, and a client certificate; valid for a day."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _sign("test authority", ca_key, None, ca_key)
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "client.pem", folder / "client.key")
    files.ca.write_bytes(_pem(ca))
    server_key, client_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    files.server_pair.write_bytes(_pem(server_key) + _pem(_sign("server", server_key, ca, ca_key)) + _pem(ca))
    files.client_cert.write_bytes(_pem(_sign("client", client_key, ca, ca_key)))
    files.client_key.write_bytes(_pem(client_key))
    return files


def _sign(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _pem(what: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(what, x509.Certificate):
        return what.public_bytes(serialization.Encoding.PEM)
    return what.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
