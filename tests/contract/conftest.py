import pytest

pytest.register_assert_rewrite("vknix.testing")
