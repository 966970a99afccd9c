"""The names of all upstream tests in, those to run out: the ones that need a node, without a feature that not every host has."""

import re
from collections.abc import Iterable

CONFORMANCE = re.compile(r"\[sig-(node|storage)\].*\[Conformance\]")

# For hosts whose cgroups have controllers.
RESIZE = re.compile(r"Pod InPlace Resize")

# These speak with the API server alone: whatever the node is, they say the same.
API_ONLY = re.compile(
    "|".join(
        (
            r"\[sig-node\] (PodTemplates|Lease|Node Lifecycle)",
            r"\[DRA\] CRUD",
            r"ConfigMap should (fail to create ConfigMap with empty key|run through a ConfigMap lifecycle|update ConfigMap)",
            r"Secrets should (fail to create secret due to empty secret key|patch a secret)",
            r"RuntimeClass should (support RuntimeClasses API operations|reject a Pod)",
            r"should be immutable if `immutable` field is set",
            r"CSI(InlineVolumes|Nodes|StorageCapacity)",
            r"(PersistentVolumes|StorageClasses) CSI Conformance",
            r"VolumeAttachment|VolumeAttributesClass",
        )
    )
)


def chosen(names: Iterable[str], *, resize: bool = False, focus: str = "", skip: str = "") -> list[str]:
    """The conformance tests that need a node: all but those of in-place resize, or these alone. `focus` and `skip` narrow it."""
    return [
        name
        for name in names
        if CONFORMANCE.search(name)
        and not API_ONLY.search(name)
        and bool(RESIZE.search(name)) == resize
        and re.search(focus, name)
        and not (skip and re.search(skip, name))
    ]


# A few of each group that take seconds, for scripts/test.
_QUICK = re.compile(
    "|".join(
        (
            r"sig-node\] (ConfigMap|Secrets) should be consumable as environment variable names",
            r"Containers should",
            r"Downward API should provide (pod name|hostIPs|default limits)",
            r"Ephemeral Containers",
            r"ImageVolume",
            r"InitContainer .* RestartNever pod",
            r"Kubelet when .*(hostAliases|read only|terminated reason)",
            r"KubeletManagedEtcHosts",
            r"Lifecycle Hook .* (poststart http|prestop exec)",
            r"Pods should (be updated|contain environment|support remote|support retrieving)",
            r"Pod Generation pod generation should start at 1",
            r"RuntimeClass should schedule .* without",
            r"sig-node\] Security Context .*(uid 65534|escalation|RunAsGroup)",
            r"Sysctls .* should support",
            r"Variable Expansion should (allow substituting values in a volume subpath|fail .* absolute path)",
            r"termination message if TerminationMessagePath is set as non-root",
            r"sig-storage\] (ConfigMap|Projected secret) (should be consumable .* Item|optional updates|updates)",
            r"Downward API volume should (update labels|provide node allocatable \(cpu\))",
            r"EmptyDir volumes (should support \(non-root,0666,tmpfs\)|pod should support shared)",
            r"EmptyDir wrapper volumes should not conflict",
            r"Secrets should be consumable .* fsGroup",
        )
    )
)


def quick(names: Iterable[str]) -> list[str]:
    """A choice of `chosen` that takes few minutes."""
    return [name for name in chosen(names) if _QUICK.search(name)]
