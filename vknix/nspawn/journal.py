"""A query for a host's journal -> the journalctl that answers it. Pure."""

import shlex

from vknix.provider import JournalQuery


def command(query: JournalQuery) -> tuple[str, ...]:
    """As the kubelet asks (kubelet_server_journal.go); a value is in the word of its option, so that it can be no other option."""
    words = ["journalctl", "--utc", "--no-pager", "--quiet", "--output=short-precise"]
    words += [f"--unit={unit}" for unit in query.units]
    words += [f"--since=@{query.since:.6f}"] if query.since is not None else []
    words += [f"--until=@{query.until:.6f}"] if query.until is not None else []
    words += [f"--lines={query.tail_lines}"] if query.tail_lines is not None else []
    words += [f"--grep={query.pattern}"] if query.pattern else []
    words += [f"--boot={query.boot}"] if query.boot is not None else []
    return tuple(words)


def script(query: JournalQuery) -> str:
    """A pattern that nothing fits is an exit code without a word, and no error."""
    return f"""exec 3>&1
said=$({shlex.join(command(query))} 2>&1 >&3) && exit
code=$?
[ -z "$said" ] || {{ echo "$said" >&2; exit "$code"; }}
"""
