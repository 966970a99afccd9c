"""A busy machine makes no test fail: properties have no deadline of their own."""

from hypothesis import settings

settings.register_profile("vknix", deadline=None, max_examples=60)
settings.load_profile("vknix")
