"""vknix.core.fetched: what is secret is not printed."""

from vknix.core.fetched import Fetched, ObjectKey, Token, TokenKey


def test_secrets_are_in_no_repr() -> None:
    fetched = Fetched({ObjectKey("Secret", "s"): {"k": b"hunter2"}}, {TokenKey("", 3600): Token("hunter2", 0, 1)})
    assert "hunter2" not in repr(fetched)
    assert "hunter2" not in repr(fetched.tokens[TokenKey("", 3600)])


def test_keys_are_values() -> None:
    assert {ObjectKey("Secret", "s"), ObjectKey("Secret", "s"), ObjectKey("ConfigMap", "s")} == {
        ObjectKey("ConfigMap", "s"),
        ObjectKey("Secret", "s"),
    }
