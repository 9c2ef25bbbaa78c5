"""Signed policies: who may tell agents what to do.

A policy record is signed with Ed25519 (RFC 8032). What is signed is, in this order:

==================  ============================================================================================
``DOMAIN``          ``steersman-policy-v1`` and a zero byte
length, topic       4 bytes big-endian, then the name of the policy topic in UTF-8: no copy from another deployment
length, record key  4 bytes big-endian, then the key of the Kafka record (``tenant/policy``): no copy to another policy
schema              32 bytes: SHA-256 of the parsing canonical form of the schema that wrote the body
body                the Avro body under the writer's schema with the field ``signature`` empty
==================  ============================================================================================

The signature (64 bytes) then goes into that field. The framing before the body is not covered: it only says which
schema wrote the body. A body that is not exactly what encoding its own content gives
(numbers written longer than needed, arrays in several blocks) is refused, so a signed record has one form only.

Needs the package ``cryptography``: ``pip install 'steersman[signed]'``.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from steersman.codec import Codec, Headers
from steersman.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SignatureMode = Literal["require", "warn", "off"]
MODES: Final[tuple[SignatureMode, ...]] = ("require", "warn", "off")
DOMAIN: Final = b"steersman-policy-v1\0"
MAX_KEYS: Final = 4
"""Most public keys valid at a time: a rotation needs two."""
KEYS_VARIABLE: Final = "STEERSMAN_POLICY_KEYS"
MODE_VARIABLE: Final = "STEERSMAN_POLICY_SIGNATURES"

_FIELD = "signature"
_SIGNATURE_BYTES = 64
_MAX_KEY_FILE = 16_384


@dataclass(frozen=True)
class Verdict:
    """What the signature of a record says.

    Attributes
    ----------
    reason : str
        Empty when the record is signed by a trusted key; else ``unsigned``, ``signature``, or the reason of a
        `DecodeError`.
    key_id : str
        Whose signature it is, as in `key_id`; empty without a good one.
    """

    reason: str
    key_id: str = ""


class PolicyVerifier:
    """Checks the signatures of the records of a policy topic.

    Parameters
    ----------
    topic : str
        Name of the policy topic.
    keys : sequence of Path or Ed25519PublicKey
        Public keys, or files with them (PEM); a record signed by any of them is good.
    mode : {"require", "warn"}
        Whether the caller is to refuse what is not signed, or only to say so.

    Raises
    ------
    ConfigError
        When a file is no such key, there is none or more than `MAX_KEYS`, or ``cryptography`` is not installed.
    """

    def __init__(self, topic: str, keys: Sequence[Path | Ed25519PublicKey], mode: SignatureMode = "require") -> None:
        if not keys:
            raise ConfigError(
                f"policy signatures are set to {mode!r} but no public key is named: put the files into {KEYS_VARIABLE} "
                "(comma-separated), or make a pair with 'steersman policy keygen'"
            )
        if len(keys) > MAX_KEYS:
            raise ConfigError(f"{len(keys)} policy keys are configured, at most {MAX_KEYS} may be valid at a time")
        self.mode = mode
        self._topic = topic
        self._keys = {key_id(k): k for k in (load_public_key(key) if isinstance(key, Path) else key for key in keys)}

    @property
    def key_ids(self) -> list[str]:
        """Ids of the keys trusted."""
        return list(self._keys)

    def check(self, codec: Codec, key: bytes, value: bytes, headers: Headers = ()) -> Verdict:
        """Say whether a record was signed by a trusted key for this topic and record key. Raises nothing.

        Parameters
        ----------
        codec : Codec
            Of ``policy_snapshot``: knows which schemas may have written the value.
        key, value, headers
            The Kafka record.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            schema, signature, body = codec.without(_FIELD, value, headers)
        except DecodeError as error:
            return Verdict(error.reason)
        if not isinstance(signature, bytes) or len(signature) != _SIGNATURE_BYTES:
            return Verdict("signature" if signature else "unsigned")
        message = signed_bytes(self._topic, key, schema, body)
        for name, public in self._keys.items():
            try:
                public.verify(signature, message)
            except InvalidSignature:
                continue
            return Verdict("", name)
        return Verdict("signature")


class PolicySigner:
    """Signs the records of a policy topic.

    Parameters
    ----------
    topic : str
        Name of the policy topic.
    key : Path
        File with an Ed25519 private key (PEM, PKCS #8, not encrypted), not readable by others.

    Raises
    ------
    ConfigError
        When the file is no such key, anybody may read it, or ``cryptography`` is not installed.

    Attributes
    ----------
    key_id : str
        Id of the public half, as in `key_id`.
    """

    def __init__(self, topic: str, key: Path) -> None:
        self._topic = topic
        self._key = load_private_key(key)
        self.public_key = self._key.public_key()
        self.key_id = key_id(self.public_key)

    def encode(self, codec: Codec, key: bytes, record: Mapping[str, Any]) -> bytes:
        """Encode a record for the record key given, signed.

        Raises
        ------
        ValueError
            When the record does not fit the contract.
        """
        schema, _, body = codec.without(_FIELD, codec.encode({**record, _FIELD: b""}))
        signature = self._key.sign(signed_bytes(self._topic, key, schema, body))
        return codec.encode({**record, _FIELD: signature})


def signed_bytes(topic: str, key: bytes, schema: bytes, body: bytes) -> bytes:
    """What a signature covers; see the module."""
    name = topic.encode()
    return b"".join((DOMAIN, len(name).to_bytes(4, "big"), name, len(key).to_bytes(4, "big"), key, schema, body))


def verifier_for(
    topic: str,
    keys: Sequence[Path | Ed25519PublicKey] | None = None,
    mode: SignatureMode | None = None,
    *,
    otherwise: Ed25519PublicKey | None = None,
) -> PolicyVerifier | None:
    """Make the verifier that arguments, or else the environment, ask for; None when signatures are not looked at.

    Parameters
    ----------
    topic : str
        Name of the policy topic.
    keys : sequence of Path, optional
        Public keys; the files in ``STEERSMAN_POLICY_KEYS`` when not given.
    mode : {"require", "warn", "off"}, optional
        ``STEERSMAN_POLICY_SIGNATURES`` when not given, or else ``require`` as soon as there are keys.
    otherwise : Ed25519PublicKey, optional
        The key to trust when none is named: a learner's own.

    Raises
    ------
    ConfigError
        When the mode is unknown, or as by `PolicyVerifier`.
    """
    if keys is None:
        keys = [Path(part.strip()) for part in os.environ.get(KEYS_VARIABLE, "").split(",") if part.strip()]
    if not keys and otherwise is not None:
        keys = [otherwise]
    chosen = mode or os.environ.get(MODE_VARIABLE) or ("require" if keys else "off")
    if chosen not in MODES:
        raise ConfigError(f"policy signatures must be one of {', '.join(MODES)}, not {chosen!r} ({MODE_VARIABLE})")
    return None if chosen == "off" else PolicyVerifier(topic, keys, cast(SignatureMode, chosen))


def key_id(public: Ed25519PublicKey) -> str:
    """Short name of a public key for people: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def generate_keys(private: Path, public: Path) -> str:
    """Write a new pair of keys and return the id of the public one.

    Parameters
    ----------
    private : Path
        Gets mode 0600. Neither file may exist.
    public : Path
        Gets mode 0644.

    Raises
    ------
    ConfigError
        When a file exists or cannot be written, or ``cryptography`` is not installed.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    if public.exists():
        raise ConfigError(f"{public} exists: a key is never overwritten; name another file")
    key = Ed25519PrivateKey.generate()
    _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write_new(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return key_id(key.public_key())


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key; ConfigError says what is wrong with the file."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = _read(path)
    if b"PRIVATE KEY" in pem:
        raise ConfigError(f"{path} is a private key: agents get the public one, the private one stays with the learner")
    try:
        key = load_pem_public_key(pem)
    except Exception as error:  # the package raises several kinds, none of which may show what is in the file
        raise ConfigError(f"{path} is not a public key in PEM form ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} is not an Ed25519 key; make a pair with 'steersman policy keygen'")
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key; ConfigError says what is wrong with the file, never what is in it."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = _read(path)
    if path.stat().st_mode & stat.S_IRWXO:
        raise ConfigError(
            f"every user of this machine may read the private key {path}: chmod 600 it (a mounted secret: defaultMode 0440)"
        )
    try:
        key = load_pem_private_key(pem, password=None)
    except Exception as error:
        raise ConfigError(f"{path} is not an unencrypted private key in PEM form ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key; make a pair with 'steersman policy keygen'")
    return key


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "policy keys are configured, but the package 'cryptography' is not installed: pip install 'steersman[signed]'"
        ) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise ConfigError(f"the policy key {path} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_KEY_FILE:
        raise ConfigError(f"{path} is too long for a key")
    return content


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists: a key is never overwritten; name another file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(content)
