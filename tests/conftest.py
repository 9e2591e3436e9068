"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("kennel", deadline=None)  # no test asserts a time: these machines are shared
settings.load_profile("kennel")
