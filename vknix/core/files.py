"""The files of configMap, secret, downwardAPI and projected volumes. Rules: pkg/volume/{configmap,secret,projected,downwardapi}."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from vknix.core import env, resources
from vknix.core import pod as pods
from vknix.core.fetched import Fetched, ObjectKey, Surroundings, Token, TokenKey
from vknix.core.pod import Pod
from vknix.core.volume import ConfigMapSource, DownwardItem, DownwardSource, KeyToPath, Projection, SecretSource, Volume
from vknix.errors import Refused

_DEFAULT_MODE = 0o644
_GROUP_MAY_READ = 0o440
_DEFAULT_EXPIRATION_S = 3600


@dataclass(frozen=True, slots=True)
class File:
    """`path` is relative to the volume, without `..`. `user` owns it; its group is the Pod's fsGroup, else root's."""

    path: str
    mode: int
    data: bytes = field(repr=False)
    user: int = 0


def _projections(volume: Volume) -> tuple[list[Projection], int] | None:
    """Each of these volume types is a projection with one source; None for other types."""
    if volume.config_map is not None:
        return [Projection(config_map=volume.config_map)], _mode(volume.config_map.default_mode, _DEFAULT_MODE)
    if volume.secret is not None:
        return [Projection(secret=volume.secret)], _mode(volume.secret.default_mode, _DEFAULT_MODE)
    if volume.downward_api is not None:
        return [Projection(downward_api=volume.downward_api)], _mode(volume.downward_api.default_mode, _DEFAULT_MODE)
    if volume.projected is not None:
        return volume.projected.sources or [], _mode(volume.projected.default_mode, _DEFAULT_MODE)
    return None


def _mode(own: int | None, default: int) -> int:
    return default if own is None else own


def _sources(pod: Pod) -> Iterator[Projection]:
    for volume in pod.spec.volumes or ():
        projections = _projections(volume)
        if projections is not None:
            yield from projections[0]


def objects(pod: Pod) -> Iterator[ObjectKey]:
    for source in _sources(pod):
        if source.config_map is not None:
            yield ObjectKey("ConfigMap", source.config_map.name)
        if source.secret is not None:
            yield ObjectKey("Secret", source.secret.secret_name or source.secret.name)


def shows_itself(pod: Pod) -> bool:
    """Whether a volume has fields of the Pod."""
    return any(source.downward_api is not None for source in _sources(pod))


def tokens(pod: Pod) -> Iterator[TokenKey]:
    for source in _sources(pod):
        if source.service_account_token is not None:
            wanted = source.service_account_token
            yield TokenKey(wanted.audience or "", wanted.expiration_seconds or _DEFAULT_EXPIRATION_S)


def refresh_at(pod: Pod, fetched: Fetched) -> float | None:
    """When the first token is to be renewed: after 80 % of its life, or a day (kubelet's token manager)."""
    held = [fetched.tokens[key] for key in tokens(pod) if key in fetched.tokens]
    return min((_renew_at(token) for token in held), default=None)


def _renew_at(token: Token) -> float:
    return token.issued + min(0.8 * (token.expires - token.issued), 24 * 3600)


def volumes(pod: Pod, fetched: Fetched, around: Surroundings) -> Mapping[str, tuple[File, ...]]:
    """By volume. Refused with FailedMount where an object or key that is not optional is missing."""
    made = {}
    for index, volume in enumerate(pod.spec.volumes or ()):
        projections = _projections(volume)
        if projections is not None:
            sources, mode = projections
            found: dict[str, File] = {}
            for source in sources:
                found.update(
                    (file.path, file) for file in _files(pod, f"spec.volumes[{index}]", volume, source, mode, fetched, around)
                )
            made[volume.name] = tuple(_shared(pod, file) for file in found.values())
    return made


def _shared(pod: Pod, file: File) -> File:
    """A read-only volume as volume_linux.go gives it to the fsGroup: who is in the group may read it."""
    return replace(file, mode=file.mode | _GROUP_MAY_READ) if pod.fs_group is not None else file


def _token_user(pod: Pod) -> int | None:
    """The one user that all containers run as by what the Pod says (util.FsUserFrom)."""
    whole = pod.spec.security_context
    users = set()
    for _, container in pods.containers(pod):
        own = container.security_context
        users.add(own.run_as_user if own and own.run_as_user is not None else whole.run_as_user if whole else None)
    return users.pop() if len(users) == 1 else None


def _files(
    pod: Pod, path: str, volume: Volume, source: Projection, mode: int, fetched: Fetched, around: Surroundings
) -> Iterator[File]:
    if source.config_map is not None:
        yield from _keys(path, volume, ObjectKey("ConfigMap", source.config_map.name), source.config_map, mode, fetched)
    if source.secret is not None:
        key = ObjectKey("Secret", source.secret.secret_name or source.secret.name)
        yield from _keys(path, volume, key, source.secret, mode, fetched)
    if source.downward_api is not None:
        yield from _downward(pod, path, source.downward_api, mode, around)
    if source.service_account_token is not None:
        wanted = source.service_account_token
        token = fetched.tokens[TokenKey(wanted.audience or "", wanted.expiration_seconds or _DEFAULT_EXPIRATION_S)]
        user = _token_user(pod)
        private = user is not None or pod.fs_group is not None
        yield File(_inside(wanted.path, path), 0o600 if private else mode, token.text.encode(), user or 0)


def _keys(
    path: str, volume: Volume, key: ObjectKey, source: ConfigMapSource | SecretSource, mode: int, fetched: Fetched
) -> Iterator[File]:
    data = fetched.objects.get(key)
    if data is None:
        if source.optional:
            return
        raise _failed(path, volume, f'{key.kind.lower()} "{key.name}" not found', "create it")
    for item in source.items or [KeyToPath(name, name) for name in data]:
        if item.key in data:
            yield File(_inside(item.path, path), _mode(item.mode, mode), data[item.key])
        elif not source.optional:
            raise _failed(path, volume, f"references non-existent config key: {item.key}", f"add the key to {key.kind} {key.name}")


def _downward(pod: Pod, path: str, source: DownwardSource, mode: int, around: Surroundings) -> Iterator[File]:
    for item in source.items or ():
        yield File(_inside(item.path, path), _mode(item.mode, mode), _downward_text(pod, path, item, around).encode())


def _downward_text(pod: Pod, path: str, item: DownwardItem, around: Surroundings) -> str:
    if item.field_ref is not None:
        return env.field_value(pod, item.field_ref, around, path)
    if item.resource_field_ref is not None:
        _, first = next(pods.containers(pod))
        return resources.value(pod, first, item.resource_field_ref, around, path)
    return ""


def _failed(path: str, volume: Volume, why: str, remedy: str) -> Refused:
    return Refused(path, f'MountVolume.SetUp failed for volume "{volume.name}": {why}', remedy=remedy, reason="FailedMount")


def _inside(path: str, field_path: str) -> str:
    """Refused where a path would leave its volume (atomic_writer.go's rules)."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    too_long = len(path.encode()) > 4096 or any(len(part.encode()) > 255 for part in parts)
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith("..") or too_long or "\0" in path:
        raise Refused(
            field_path,
            f"the path {path[:80]!r} leaves its volume",
            remedy="use a relative path without ..",
            reason="FailedMount",
        )
    return "/".join(parts)
