"""Pages held against incidents: a matcher that looks at every pair agrees, and the laws of being judged."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.alerts.pages import FLAP_MS, NEVER, Matching, Pages, match, merged, pages_of
from sim.alerts.states import Episode
from sim.alerts.truth import Incident

M = 60_000
moments = st.integers(0, 60).map(lambda minute: minute * M)
spans = st.tuples(moments, st.one_of(st.just(NEVER), st.integers(1, 20).map(lambda n: n * M))).map(
    lambda pair: (pair[0], NEVER if pair[1] == NEVER else pair[0] + pair[1])
)
troubles = st.lists(st.tuples(moments, st.integers(1, 20).map(lambda n: n * M)), max_size=5).map(
    lambda pairs: [Incident(f"i{i}", a, a + n) for i, (a, n) in enumerate(pairs)]
)
some_pages = st.lists(spans, max_size=6)
margins = st.integers(0, 15).map(lambda minute: minute * M)


def paged(pairs: list[tuple[int, int]]) -> Pages:
    return merged(np.array(pairs, np.int64).reshape(-1, 2))


def by_hand(pages: Pages, incidents: list[Incident], early: int, grace: int) -> dict[str, list[object]]:
    """The same semantics, pair by pair, as they are written down."""
    both = list(zip(pages.start_ms.tolist(), pages.end_ms.tolist()))
    credited: list[object] = []
    for start, _ in both:
        theirs = [i for i in incidents if i.start_ms - early <= start <= i.end_ms + grace]
        credited.append(incidents.index(min(theirs, key=lambda i: i.start_ms)) if theirs else -1)
    caught, lead, reset = [], [], []
    for one in incidents:
        low, high = one.start_ms - early, one.end_ms + grace
        inside = [(a, b) for a, b in both if low <= a <= high]
        timely = [(a, b) for a, b in inside if a < one.end_ms and b > one.start_ms]
        working = [
            page
            for page, to in zip(both, credited)
            if isinstance(to, int) and to != -1 and page[0] < low and page[1] > one.start_ms
            and one.start_ms <= incidents[to].end_ms + grace
        ]  # fmt: skip
        caught.append(bool(timely or working))
        lead.append((one.start_ms - timely[0][0]) / 1000 if timely and not working else None)
        ends = [b for _, b in inside + working]
        over = max(ends, default=None)
        late = None if over is None else math.inf if over == NEVER else max(0.0, (over - one.end_ms) / 1000)
        reset.append(late)
    return {"credited": credited, "caught": caught, "lead": lead, "reset": reset}


def said(found: Matching) -> dict[str, list[object]]:
    def known(values: np.ndarray) -> list[object]:
        return [None if math.isnan(value) else value for value in values.tolist()]

    return {
        "credited": found.credited.tolist(),
        "caught": found.caught.tolist(),
        "lead": known(found.lead_s),
        "reset": known(found.reset_s),
    }


@given(some_pages, troubles, margins, margins)
def test_a_matcher_that_looks_at_every_pair_agrees(
    pairs: list[tuple[int, int]], incidents: list[Incident], early: int, grace: int
) -> None:
    pages = paged(pairs)
    assert said(match(pages, incidents, early, grace)) == by_hand(pages, incidents, early, grace)


@given(some_pages)
def test_pages_are_the_minutes_in_which_anything_fires(pairs: list[tuple[int, int]]) -> None:
    pages = paged(pairs)
    assert (pages.start_ms[1:] > pages.end_ms[:-1]).all()
    for minute in range(0, 90 * M, M // 2):
        fires = any(a <= minute < b for a, b in pairs)
        assert fires == bool(((pages.start_ms <= minute) & (minute < pages.end_ms)).any())


@given(some_pages, spans, troubles, margins, margins)
def test_one_more_page_never_catches_less(
    pairs: list[tuple[int, int]], extra: tuple[int, int], incidents: list[Incident], early: int, grace: int
) -> None:
    few = Pages.together([paged(pairs)])
    more = Pages.together([few, paged([extra])])
    before, after = match(few, incidents, early, grace), match(more, incidents, early, grace)
    assert (after.caught >= before.caught).all()
    assert not (after.detection_s > before.detection_s).any()
    assert 0 <= (~after.true).sum() - (~before.true).sum() <= 1


@given(some_pages, troubles, margins, margins, margins)
def test_a_wider_window_makes_no_page_false(
    pairs: list[tuple[int, int]], incidents: list[Incident], early: int, grace: int, wider: int
) -> None:
    pages = paged(pairs)
    narrow, wide = match(pages, incidents, early, grace), match(pages, incidents, early + wider, grace + wider)
    assert (wide.true >= narrow.true).all()


@given(some_pages, troubles, margins, margins, st.integers(-100, 100))
def test_only_distances_count(
    pairs: list[tuple[int, int]], incidents: list[Incident], early: int, grace: int, minutes: int
) -> None:
    shift = minutes * M
    later = paged([(a + shift, b if b == NEVER else b + shift) for a, b in pairs])
    moved = [Incident(i.id, i.start_ms + shift, i.end_ms + shift) for i in incidents]
    assert said(match(later, moved, early, grace)) == said(match(paged(pairs), incidents, early, grace))


def test_episodes_of_all_label_sets_make_one_page_where_they_touch() -> None:
    def fired(start: int, end: int | None) -> Episode:
        return Episode((), 0, start * M, None if end is None else end * M)

    episodes = [fired(10, 20), fired(20, 25), Episode((), 0, None, M), fired(40, 45), fired(42, 44), fired(70, None)]
    pages = pages_of(episodes)
    assert pages.start_ms.tolist() == [10 * M, 40 * M, 70 * M]
    assert pages.end_ms.tolist() == [25 * M, 45 * M, NEVER]
    assert pages.flaps == 1  # 40 comes 15 minutes after 25, 70 more than that after 45
    assert FLAP_MS == 15 * M
    assert len(pages.since(40 * M)) == 2
    assert len(pages_of([])) == 0


def test_a_page_when_it_is_over_is_true_and_catches_nothing() -> None:
    one = Incident("i1", 100 * M, 110 * M)
    for pages, caught in (((109, 120), True), ((110, 120), False), ((90, 100), False), ((90, 101), True)):
        found = match(paged([(pages[0] * M, pages[1] * M)]), [one])
        assert found.true.tolist() == [True]
        assert found.caught.tolist() == [caught]


def test_a_page_that_still_fires_catches_the_next_incident_if_that_comes_soon() -> None:
    first, late = Incident("i1", 100 * M, 110 * M), Incident("i2", 200 * M, 210 * M)
    assert match(paged([(105 * M, NEVER)]), [first, late]).caught.tolist() == [True, False]
    first, second = Incident("i1", 100 * M, 190 * M), Incident("i2", 200 * M, 210 * M)
    pages = paged([(105 * M, 205 * M)])
    found = match(pages, [first, second])
    assert found.caught.tolist() == [True, True]
    assert found.at_work.tolist() == [False, True]
    assert found.lead_s[0] == -300
    assert math.isnan(found.lead_s[1])
    assert found.detection_s.tolist() == [300, 0]
    assert found.reset_s.tolist() == [15 * 60, 0]
    assert match(paged([(105 * M, 200 * M)]), [first, second]).caught.tolist() == [True, False]  # over just then
    for_ever = match(paged([(50 * M, NEVER)]), [first, second])
    assert not for_ever.caught.any()
    assert for_ever.credited.tolist() == [-1]
