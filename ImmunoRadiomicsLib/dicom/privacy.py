"""Names that say nothing of a patient: pseudonyms, with or without a key file, and texts without a patient's name."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .headers import Identity

_KEY_VERSION = 1


@dataclass
class KeyFile:
    """Which pseudonym stands for which patient, and the secret by which UIDs are replaced.

    The file is the only place where a patient's identity is written. Whoever has it can link a pseudonymised folder with the
    patients; keep it apart from the folder.
    """

    secret: str
    patients: dict[str, dict[str, str]] = field(default_factory=dict)

    def uid(self, uid: str) -> str:
        """Return the UID that stands for another one: always the same, and not to be traced back without the secret."""
        digest = hmac.new(bytes.fromhex(self.secret), uid.encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"

    def pseudonym(self, identity: Identity) -> str:
        """Return the pseudonym of a patient, a new one for a new patient."""
        own = {"patient_id": identity.id, "issuer": identity.issuer, "name": identity.name}
        for name, other in self.patients.items():
            if _same_person(own, other):
                return name
        number = 1 + max((int(name[1:]) for name in self.patients if re.fullmatch(r"P\d+", name)), default=0)
        self.patients[f"P{number:03d}"] = own
        return f"P{number:03d}"


def _same_person(one: dict[str, str], other: dict[str, str]) -> bool:
    if one["patient_id"]:
        return (one["patient_id"], one["issuer"]) == (other.get("patient_id"), other.get("issuer"))
    return not other.get("patient_id") and one["name"] == other.get("name")


def read_key(path: Path) -> KeyFile:
    """Read a key file, or make a new key where there is none.

    Raises
    ------
    InputError
        If the file is something else.
    """
    if not path.exists():
        return KeyFile(secrets.token_hex(32))
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        key = KeyFile(content["secret"], {str(name): dict(own) for name, own in content["patients"].items()})
        bytes.fromhex(key.secret)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: this is no key file. Name a new file, or one that an earlier import wrote."
        ) from error
    return key


def write_key(key: KeyFile, path: Path) -> None:
    """Write a key file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{secrets.token_hex(6)}")
    content = {"version": _KEY_VERSION, "secret": key.secret, "patients": key.patients}
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as stream:
            stream.write(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def scrubbed(words: str, identities: Iterable[Identity]) -> str:
    """Return a free text of a header without what names a patient, and on one line."""
    result = " ".join(words.split())
    for identity in identities:
        parts = [identity.id, *re.split(r"[\^\s,=]+", identity.name), identity.birth_date]
        for part in sorted({part for part in parts if len(part) >= 3}, key=len, reverse=True):
            result = re.sub(re.escape(part), "*", result, flags=re.IGNORECASE)
    return result
