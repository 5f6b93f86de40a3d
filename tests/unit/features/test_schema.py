"""The feature table."""

from hypothesis import given
from hypothesis import strategies as st

from onepiece.context.builder import PROFILE_FIELDS
from onepiece.features.schema import (
    ANCHORS_VIEW,
    ENTITY_KEYS,
    FEATURES,
    MAX_ANCHORS_AGE_MS,
    MAX_COUNT,
    PREFIXES,
    PROFILE_VIEW,
    available_at_ms_of,
    feature_schema_digest,
    features_of,
    is_fresh,
    is_newer,
    version_at,
)


def test_every_feature_has_one_name_and_a_known_entity():
    names = [spec.name for spec in FEATURES]

    assert len(set(names)) == len(names)
    assert {spec.entity for spec in FEATURES} <= set(ENTITY_KEYS)


def test_a_view_has_one_entity_one_maximum_age_and_ends_in_its_version():
    for view, prefix in PREFIXES.items():
        specs = features_of(view)

        assert len({(spec.entity, spec.max_age_ms) for spec in specs}) == 1
        assert specs[-1].name == f"{prefix}_version"


def test_the_profile_features_are_those_the_context_reads():
    names = tuple(spec.name for spec in features_of(PROFILE_VIEW))[:-1]

    assert names == PROFILE_FIELDS


def test_a_row_is_fresh_up_to_and_including_its_maximum_age():
    assert is_fresh(ANCHORS_VIEW, available_at_ms=5, as_of_ms=5 + MAX_ANCHORS_AGE_MS)
    assert not is_fresh(ANCHORS_VIEW, available_at_ms=5, as_of_ms=6 + MAX_ANCHORS_AGE_MS)
    assert is_fresh(ANCHORS_VIEW, available_at_ms=5, as_of_ms=0)
    assert is_fresh(PROFILE_VIEW, available_at_ms=0, as_of_ms=10**15)


states = st.tuples(
    st.integers(0, 2**43 - 1) | st.sampled_from((1, 2)),
    st.integers(0, 3) | st.integers(MAX_COUNT - 2, MAX_COUNT),
)


@given(first=states, second=states)
def test_versions_are_ordered_by_instant_then_by_events(first, second):
    versions = version_at(*first), version_at(*second)

    assert (versions[0] < versions[1]) == (first < second)
    assert available_at_ms_of(versions[0]) == first[0]
    assert versions[0] < 2**63
    assert is_newer(versions[0], stored=versions[1]) == (
        first > second or (first == second and first[1] in (0, MAX_COUNT))
    )


def test_a_version_counts_no_further_than_its_bits():
    assert version_at(5, MAX_COUNT + 7) == version_at(5, MAX_COUNT) < version_at(6)


def test_the_digest_is_pinned_so_that_a_change_is_never_an_accident():
    """A bundle is refused when this changes: old bundles must be trained anew."""
    assert feature_schema_digest() == "14f8b5cecb9d60cb2507da131ad5e479"
