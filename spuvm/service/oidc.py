"""Log-in at the page by an organisation's own provider of identities: OpenID Connect, authorization code with PKCE.

    [oidc]                               # in service.toml; needs the extra `oidc`
    issuer = "https://login.example.com/realms/hospital"
    client_id = "spuvm"
    client_secret_file = "oidc.secret"   # optional: of a client that has one
    redirect = "https://spuvm.example.com:8443/login/callback"   # where people reach the page, with this path
    name = "email"                       # optional: the claim that names a user, `sub` if it is not given
    ca = "provider-ca.crt"               # optional: whose certificate the provider has, if not one that all know

The provider proves who somebody is; what he may do stays with the party: users are added with `spuvm users add NAME`,
and the claim must be such a name. `service/provider.py` talks to the provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spuvm.policy import fields
from spuvm.policy.fields import Field
from spuvm.runtime.errors import ConfigError

CALLBACK = "/login/callback"
FIELDS = {
    "issuer": Field(fields.text),
    "client_id": Field(fields.text),
    "client_secret_file": Field(fields.text, None),
    "redirect": Field(fields.text),
    "name": Field(fields.text, "sub"),
    "ca": Field(fields.text, None),
}


@dataclass(frozen=True)
class Oidc:
    issuer: str
    client_id: str
    client_secret: str | None
    redirect: str
    name: str
    ca: Path | None


def read(table: Any, path: Path) -> Oidc:
    """The table [oidc] of a service's file. ConfigError for whatever is wrong, and if the extra is not installed."""
    where = f"[oidc] in {path}"
    values = fields.read(table, FIELDS, where)
    for key in ("issuer", "redirect"):
        if not is_safe(values[key]):
            raise ConfigError(f"{where}: `{key}` must be an https address (http on this machine), got {values[key]!r}.")
    if urlsplit(values["redirect"]).path != CALLBACK:
        raise ConfigError(f"{where}: `redirect` must end with {CALLBACK}, got {values['redirect']!r}.")
    secret = _read(path.parent / values["client_secret_file"], where) if values["client_secret_file"] else None
    ca = path.parent / values["ca"] if values["ca"] else None
    if ca is not None and not ca.is_file():
        raise ConfigError(f"{where}: `ca`: there is no file {ca}.")
    if not all(map(find_spec, ("authlib", "joserfc"))):
        raise ConfigError(f"{where} needs packages that are not installed: pip install 'spuvm[oidc]'.")
    return Oidc(values["issuer"], values["client_id"], secret, values["redirect"], values["name"], ca)


def _read(path: Path, where: str) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: `client_secret_file` {path} cannot be read: {error}.") from None
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{where}: others can read {path}: run `chmod 600 {path}`.")
    if not secret:
        raise ConfigError(f"{where}: `client_secret_file` {path} is empty: leave the line out if there is no secret.")
    return secret


def is_safe(address: str) -> bool:
    """Whether nobody on the way can read or change what is said there."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and here))
