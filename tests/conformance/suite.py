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
