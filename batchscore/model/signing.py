"""Signed bundles: a signature over ``batchscore.json``, which has the SHA-256 of every file that the model is loaded from.

Whoever can write to a bundle can change weights, canaries and hashes together and seal them again; what cannot be made again is
the signature of a key that is somewhere else. Keys and signatures are OpenSSH's (``ssh-keygen -t ed25519``), so that operators have
the tool at hand, and a key may stay in an agent or another machine::

    ssh-keygen -Y sign -n batchscore -f KEY model/batchscore.json     is     batchscore sign model/ --key KEY

The format of the signature is that of ``PROTOCOL.sshsig`` in OpenSSH; Ed25519 is computed by the package ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import getpass
import hashlib
import logging
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore.errors import ModelError, UsageError, missing_extra, printable
from batchscore.system.documents import DocumentError, read_regular
from batchscore.system.storage import write_bytes

SIGNATURE = "batchscore.json.sig"
"""Beside ``batchscore.json``, where ``ssh-keygen -Y sign`` puts it too."""
NAMESPACE = "batchscore"
"""What a signature is for; one that the same key made for something else does not count."""
PASSPHRASE = "BATCHSCORE_SIGN_PASSPHRASE"  # noqa: S105 - the name of the variable
_TERMINAL = "/dev/tty"
_LOG = logging.getLogger(__name__)
_KIND = b"ssh-ed25519"
_MAGIC, _VERSION = b"SSHSIG", 1
_HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_WIDTH = 70
_OPTIONS = {
    *(
        "agent-forwarding",
        "cert-authority",
        "no-agent-forwarding",
        "no-port-forwarding",
        "no-pty",
        "no-touch-required",
    ),
    *("no-user-rc", "no-x11-forwarding", "port-forwarding", "pty", "restrict", "touch-required", "user-rc"),
    *("verify-required", "x11-forwarding"),
}
"""Options before a key in ``authorized_keys`` and ``allowed_signers`` that have no value; OpenSSH takes them in any case."""
_OF_OPTIONS = frozenset('=",')
_MOST_BYTES = 2**20
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64


@dataclasses.dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key, by its 32 bytes."""

    raw: bytes

    @property
    def blob(self) -> bytes:
        """As OpenSSH has it."""
        return _string(_KIND) + _string(self.raw)

    @property
    def id(self) -> str:
        """Its fingerprint as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @classmethod
    def of_blob(cls, blob: bytes) -> PublicKey:
        """Raises :class:`ValueError` for another kind of key."""
        kind, raw = _strings(blob, 2)
        if kind != _KIND or len(raw) != _KEY_BYTES:
            raise ValueError("it is no Ed25519 key")
        return cls(raw)


# -------------------------------------------------------------------------------------------------------- checking


def trusted_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """The public keys in some files: one a line, as in ``KEY.pub``, ``authorized_keys`` or with a name before it.

    Raises:
        ModelError: a file cannot be read, holds no key, or a line that is not understood.
    """
    found: dict[bytes, PublicKey] = {}
    for path in paths:
        keys = list(_keys_in(path))
        if not keys:
            raise ModelError(f"--trust {printable(path)} holds no key. Give the public one, such as KEY.pub.")
        found |= {key.raw: key for key in keys}
    return tuple(found.values())


def _keys_in(path: Path) -> Iterator[PublicKey]:
    try:
        lines = read_regular(path, _MOST_BYTES).decode("utf-8").splitlines()
    except OSError as error:
        raise ModelError(f"--trust {printable(path)} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(f"--trust {printable(path)} cannot be read: {printable(error)}.") from error
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        kind = _KIND.decode()
        at = fields.index(kind) if kind in fields[:2] else -1
        try:
            if at < 0:
                raise ValueError(f"it is not [NAME] {kind} KEY")
            if _is_restriction(
                fields[0]
            ):  # a revoked key, or one that may not do all, must not be trusted with all
                raise ValueError("it begins with an option or a marker, not with a name")
            yield PublicKey.of_blob(base64.b64decode(fields[at + 1], validate=True))
        except (ValueError, IndexError) as error:
            raise ModelError(
                f"--trust {printable(path)}, line {number}: {printable(error)}. Only Ed25519 keys without options are "
                "understood; make one with: ssh-keygen -t ed25519"
            ) from error


def _is_restriction(field: str) -> bool:
    return field.startswith("@") or not _OF_OPTIONS.isdisjoint(field) or field.lower() in _OPTIONS


def signer_of(folder: Path, content: bytes, trusted: Sequence[PublicKey]) -> PublicKey:
    """Which trusted key signed a bundle; ``content`` is that of its ``batchscore.json``.

    Raises:
        ModelError: it is not signed, by none of the keys, or the signature is not of this content.
    """
    path = folder / SIGNATURE
    try:
        key, digest_name, signature = _signature_in(read_regular(path, _MOST_BYTES))
    except FileNotFoundError:
        raise ModelError(
            f"{printable(folder)} is not signed, and --trust takes only what is. Sign it where the key is: batchscore sign "
            f"{printable(folder)} --key KEY"
        ) from None
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ModelError(
            f"{printable(path)} is no signature of ours: {printable(error)}. Sign the bundle again."
        ) from error
    if key not in trusted:
        known = ", ".join(each.id for each in trusted)
        raise ModelError(
            f"{printable(folder)} is signed by {key.id}, which --trust does not name ({known}). Take the bundle from where it "
            "was published, or trust that key too."
        )
    if not _is_signature(key, signature, _signed(content, digest_name)):
        raise ModelError(
            f"{printable(folder)} was changed after {key.id} signed it, or the signature is of another bundle. Copy it "
            "again whole from where it was published."
        )
    return key


def claimed_signer(folder: Path) -> str | None:
    """The id of the key that a bundle says it is signed by, which is held against nothing; None without a signature."""
    try:
        return _signature_in(read_regular(folder / SIGNATURE, _MOST_BYTES))[0].id
    except (OSError, ValueError):
        return None


def _is_signature(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise missing_extra("A signature", "sign", ModelError) from error
    return ed25519


# --------------------------------------------------------------------------------------------------------- signing


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A private key, ready to sign."""

    key: Any
    public: PublicKey

    def sign(self, folder: Path, content: bytes) -> str:
        """Write the signature of a bundle, whose ``batchscore.json`` has this content; returns the key's id.

        Raises:
            StorageError: it cannot be written.
        """
        signature = self.key.sign(_signed(content, b"sha512"))
        write_bytes(folder / SIGNATURE, _armored(self.public, signature))
        return self.public.id


def signing_key(path: Path) -> SigningKey:
    """Load a private key of OpenSSH or in PEM; a passphrase comes from the environment, or is asked for on the terminal.

    Raises:
        ModelError: it cannot be read, or is no Ed25519 key; a wrong passphrase.
        UsageError: it needs a passphrase, and there is nobody to ask.
    """
    ed25519 = _ed25519()
    try:
        content = read_regular(path, _MOST_BYTES)
        if path.stat().st_mode & 0o077:
            _LOG.warning(
                "%s can be read by others than its owner; mend that with: chmod 600", printable(path)
            )
    except OSError as error:
        raise ModelError(f"The key {printable(path)} cannot be read: {error.strerror}.") from error
    except DocumentError as error:
        raise ModelError(f"The key {printable(path)} cannot be read: {error}.") from None
    key = _loaded(content, path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ModelError(
            f"{printable(path)} is no Ed25519 key. Make one with: ssh-keygen -t ed25519 -f {printable(path)}.new"
        )
    return SigningKey(key, PublicKey(key.public_key().public_bytes_raw()))


def _loaded(content: bytes, path: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        try:
            return load(content, None)
        except TypeError:  # it has a passphrase
            return load(content, _passphrase(path).encode())
    except UsageError:
        raise
    except Exception as error:  # several kinds, by format and version
        raise ModelError(
            f"{printable(path)} cannot be loaded as a private key: {printable(error) or type(error).__name__}. Give the one "
            f"without .pub, and its passphrase in {PASSPHRASE}, if it has one."
        ) from error


def _passphrase(path: Path) -> str:
    if (given := os.environ.get(PASSPHRASE)) is not None:
        return given
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise UsageError(
            f"{printable(path)} has a passphrase, and there is no terminal to ask for it. Set {PASSPHRASE}."
        ) from None
    return getpass.getpass(f"Passphrase of {printable(path)}: ")


# ---------------------------------------------------------------------------------------------------------- format


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _strings(content: bytes, number: int) -> list[bytes]:
    """So many strings and nothing behind them; raises :class:`ValueError`."""
    found: list[bytes] = []
    for _ in range(number):
        length = int.from_bytes(content[:4], "big")
        if len(content) < 4 + length or len(content) < 4:
            raise ValueError("it is cut short")
        found.append(content[4 : 4 + length])
        content = content[4 + length :]
    if content:
        raise ValueError("there is something behind it")
    return found


def _signed(content: bytes, digest_name: bytes) -> bytes:
    """What is signed for some content."""
    digest = _HASHES[digest_name](content).digest()
    return _MAGIC + b"".join(map(_string, (NAMESPACE.encode(), b"", digest_name, digest)))


def _armored(key: PublicKey, signature: bytes) -> bytes:
    parts = (key.blob, NAMESPACE.encode(), b"", b"sha512", _string(_KIND) + _string(signature))
    blob = _MAGIC + _VERSION.to_bytes(4, "big") + b"".join(map(_string, parts))
    lines = textwrap.wrap(base64.b64encode(blob).decode(), _WIDTH)
    return ("\n".join([_BEGIN, *lines, _END]) + "\n").encode()


def _signature_in(content: bytes) -> tuple[PublicKey, bytes, bytes]:
    """Key, name of the hash, and signature of a signature file; raises :class:`ValueError`."""
    lines = content.decode("ascii").split()
    if [" ".join(lines[:3]), " ".join(lines[-3:])] != [_BEGIN, _END]:
        raise ValueError("it does not begin and end as one")
    try:
        blob = base64.b64decode("".join(lines[3:-3]), validate=True)
    except binascii.Error as error:
        raise ValueError("it is damaged") from error
    start = _MAGIC + _VERSION.to_bytes(4, "big")
    if not blob.startswith(start):
        raise ValueError("it is of another version")
    key, namespace, _, digest_name, signature = _strings(blob[len(start) :], 5)
    if namespace != NAMESPACE.encode():
        raise ValueError(f"it was made for {namespace[:40]!r}, not for {NAMESPACE}")
    if digest_name not in _HASHES:
        raise ValueError("it has an unknown hash")
    kind, raw = _strings(signature, 2)
    if kind != _KIND or len(raw) != _SIGNATURE_BYTES:
        raise ValueError("it is not of an Ed25519 key")
    return PublicKey.of_blob(key), digest_name, raw


def without_signature(hashes: Mapping[str, str]) -> dict[str, str]:
    """The files but the signature, which signs them and is not loaded from."""
    return {name: digest for name, digest in hashes.items() if name != SIGNATURE}
