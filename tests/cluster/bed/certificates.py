"""The bed's own certificate authority, its certificates, and a kubeconfig for each client."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

from bed.network import NODE

API_SERVER = "https://127.0.0.1:6443"
"""In the bed's network namespace, so the usual port is always free."""
VALID = timedelta(days=365)
"""A bed that a developer keeps up must not expire; it is made anew at each start."""


@dataclass(frozen=True)
class Identity:
    """Who a certificate is for."""

    name: str
    """Of its files."""
    common_name: str
    organisation: str = ""
    """What Kubernetes reads as the group."""
    hosts: tuple[str, ...] = ()
    """Names and addresses that a server answers at."""


IDENTITIES = (
    Identity(
        "apiserver",
        "kube-apiserver",
        hosts=("127.0.0.1", "10.96.0.1", "localhost", "kubernetes.default.svc"),
    ),
    Identity("webhook", "webhook", hosts=("127.0.0.1",)),
    Identity("admin", "admin", "system:masters"),
    Identity("kubelet-client", "kubelet-client", "system:masters"),
    Identity("kube-controller-manager", "system:kube-controller-manager"),
    Identity("kube-scheduler", "system:kube-scheduler"),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("kubelet", "system:node:vm", "system:nodes", hosts=("vm", "127.0.0.1", NODE)),
)


def write_certificates(folder: Path) -> None:
    """Writes NAME.crt and NAME.key of the authority and all identities, and NAME.kubeconfig.

    Also sa.key and sa.pub, which service-account tokens are signed and checked with.
    """
    folder.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bed")])
    authority = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .sign(key, SHA256())
    )
    _write_pair(folder, "ca", authority, key)
    for identity in IDENTITIES:
        own = ec.generate_private_key(ec.SECP256R1())
        _write_pair(folder, identity.name, _signed(identity, own, authority, key), own)
        _write_kubeconfig(folder, identity.name)
    tokens = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(_private_bytes(tokens))
    (folder / "sa.pub").write_bytes(
        tokens.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
    )


def _signed(
    identity: Identity,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, identity.common_name)]
    if identity.organisation:
        parts.append(x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, identity.organisation))
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(x509.Name(parts), authority.subject, key.public_key())
    if identity.hosts:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName([_host(host) for host in identity.hosts])
        builder = builder.add_extension(names, critical=False)
    return builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False).sign(
        authority_key, SHA256()
    )


def _host(host: str) -> x509.GeneralName:
    if host.replace(".", "").isdigit():
        return x509.IPAddress(ip_address(host))
    return x509.DNSName(host)


def _write_pair(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / f"{name}.crt").write_bytes(pem)
    (folder / f"{name}.key").write_bytes(_private_bytes(key))


def _private_bytes(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_kubeconfig(folder: Path, name: str) -> None:
    """Writes a kubeconfig that holds its certificates, as JSON, which is YAML."""

    def inline(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": API_SERVER, "certificate-authority-data": inline("ca.crt")}
    user = {
        "client-certificate-data": inline(f"{name}.crt"),
        "client-key-data": inline(f"{name}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": name}}],
        "current-context": "bed",
    }
    (folder / f"{name}.kubeconfig").write_text(json.dumps(config))
