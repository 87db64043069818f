"""Real processes take long to start where others compute: these tests have the time for it."""

import pytest

TIMEOUT_S = 400  # against what hangs, and nothing else


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        limit = item.get_closest_marker("timeout")
        if "end_to_end" in item.path.parts and (limit is None or limit.args[0] < TIMEOUT_S):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S), append=False)
