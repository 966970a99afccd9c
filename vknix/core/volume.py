"""A volume of a Pod as the API server sends it -> typed values. Only the fields that vknix reads; core/fields.py judges all."""

import msgspec

from vknix.core.container import Amount, Api, FieldSelector, ResourceSelector


class KeyToPath(Api, frozen=True):
    key: str
    path: str
    mode: int | None = None


class ConfigMapSource(Api, frozen=True):
    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class SecretSource(Api, frozen=True):
    secret_name: str = ""
    name: str = ""  # in a projection
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class DownwardItem(Api, frozen=True):
    path: str
    field_ref: FieldSelector | None = None
    resource_field_ref: ResourceSelector | None = None
    mode: int | None = None


class DownwardSource(Api, frozen=True):
    items: list[DownwardItem] | None = None
    default_mode: int | None = None


class TokenSource(Api, frozen=True):
    path: str
    audience: str | None = None
    expiration_seconds: int | None = None


class Projection(Api, frozen=True):
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = msgspec.field(default=None, name="downwardAPI")
    service_account_token: TokenSource | None = None


class ProjectedSource(Api, frozen=True):
    sources: list[Projection] | None = None
    default_mode: int | None = None


class EmptyDir(Api, frozen=True):
    medium: str = ""
    size_limit: Amount | None = None


class HostPath(Api, frozen=True):
    path: str
    type: str | None = None


class ImageVolume(Api, frozen=True):
    reference: str = ""
    pull_policy: str | None = None


class ClaimSource(Api, frozen=True):
    claim_name: str
    read_only: bool | None = None


class EphemeralSource(Api, frozen=True):
    """A controller makes a claim of the template in it."""


class NfsSource(Api, frozen=True):
    server: str
    path: str
    read_only: bool | None = None


class Volume(Api, frozen=True):
    name: str
    empty_dir: EmptyDir | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedSource | None = None
    host_path: HostPath | None = None
    image: ImageVolume | None = None
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: EphemeralSource | None = None
    nfs: NfsSource | None = None
