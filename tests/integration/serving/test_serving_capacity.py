"""`onepiece bench serving-capacity`, small: a real server, asked by every door."""

import pytest

from onepiece.bench_serving import METHODS, Load, measure_capacity

# The fixture's Redis is not used: it says what is missing where there is none.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("redis_process"),
]


def test_a_server_is_weighed_and_asked_by_every_door(repository, monkeypatch):
    monkeypatch.chdir(repository)

    figures = measure_capacity(
        Load(
            sizes=(400, 20_000),
            asked_size=400,
            num_rounds=1,
            num_alone=10,
            num_together=20,
            num_callers=4,
        )
    )

    found = figures.others
    for door in ("grpc", "rest"):
        for method in METHODS:
            name = f"{door}_{method}"
            assert 0 < found[f"{name}_per_s_least"] <= found[f"{name}_per_s_most"]
            assert found[f"{name}_per_cpu_s"] > 0
            for how in ("alone", "together"):
                assert 0 < found[f"{name}_{how}_p50_ms"] <= found[f"{name}_{how}_p99_ms"]
    # The server does all that the bare model does, and more.
    assert found["bare_forward_cpu_ms"] == figures.baseline < 2 * figures.ours
    for items in (400, 20_000):
        assert found[f"resident_mib_{items}_items"] <= found[f"peak_mib_{items}_items"]
    # A vector of 160 floats an item is the least that is there.
    assert 640 < found["fitted_bytes_an_item"] < 20_000
