"""Amounts -> systemd's properties for a unit or a slice. Pure."""


def properties(cpu_milli: int | None, memory_bytes: int | None) -> list[tuple[str, str]]:
    of = []
    if cpu_milli:
        whole, tenth = divmod(max(cpu_milli, 10), 10)
        of.append(("CPUQuota", f"{whole}.{tenth}%" if tenth else f"{whole}%"))
    if memory_bytes:
        of += [("MemoryMax", str(memory_bytes)), ("MemorySwapMax", "0")]
    return of


def weight(cpu_milli: int) -> int:
    """As runc turns cpu.shares into cpu.weight."""
    shares = max(2, cpu_milli * 1024 // 1000)
    return max(1, min(10000, 1 + ((shares - 2) * 9999) // 262142))
