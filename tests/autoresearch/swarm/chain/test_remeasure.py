from dataclasses import replace

import pytest

from autoresearch.search.loop import Search
from autoresearch.search.setup.environment import record_environment
from autoresearch.swarm.chain.links import Link, link_of
from autoresearch.swarm.chain.remeasure import chosen, remeasure, remeasured_line
from tests.support.stub import make_repository, make_search


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    made = make_search(make_repository(tmp_path_factory.mktemp("x") / "repo"), [0.5, 0.2], "claim=0")
    record_environment(made.journal, made.config, made.task)
    made.run()
    return made


@pytest.fixture(scope="module")
def links(search: Search) -> list[Link]:
    return [link_of(search, e) for e in search.journal.experiments() if e.kept and e.number]


def test_a_link_says_what_was_measured_and_on_what_it_depends(search: Search, links: list[Link]) -> None:
    first, second = links
    assert first.parent == search.journal.info().base_commit and second.parent == first.commit
    assert first.effect and first.interval and first.pairs
    assert first.digests == second.digests and len(set(vars(first.digests).values())) == 4
    assert Link.from_dict(first.to_dict()) == first
    other = link_of(
        make_search(search.repository, [], "claim=0", "judge.odds=9.0"), search.journal.experiment(1)
    )
    assert other.digests.judge != first.digests.judge and other.digests.task == first.digests.task


def test_an_honest_link_holds_on_new_seeds_and_a_false_one_does_not(
    search: Search, links: list[Link]
) -> None:
    before = search.journal.experiments()
    used = {t.seed for e in before for t in e.trials}
    first, second = remeasure(search, links, 2)
    assert first.holds and second.holds and not first.differs
    assert first.effect == pytest.approx(links[0].effect, abs=0.01)
    assert "it holds" in remeasured_line(first)
    assert not used & {seed for one in (first, second) for seed, *_ in one.pairs}
    lie = replace(links[0], effect=0.9, interval=(0.89, 0.91))
    [again] = remeasure(search, [lie], 2)
    assert again.holds is False and again.z is not None and again.z < -3
    assert not {seed for seed, *_ in again.pairs} & {seed for seed, *_ in first.pairs}
    assert "DOES NOT HOLD" in remeasured_line(again)
    assert search.journal.experiments() == before, "nothing that steers the search has changed"


def test_another_environment_is_told(search: Search, links: list[Link]) -> None:
    elsewhere = replace(links[0], digests=replace(links[0].digests, environment="0" * 64, data="1" * 64))
    [found] = remeasure(search, [elsewhere], 1)
    assert found.differs == ("data", "environment")
    assert "another data, environment here" in remeasured_line(found)


def test_a_training_that_fails_is_no_evidence(search: Search, links: list[Link]) -> None:
    bad = search.repository.commit(links[0].parent, {"nanomodel/train.py": "OTHER = 'crash'\n"}, "bad", 1.0)
    [found] = remeasure(search, [replace(links[0], commit=bad)], 1)
    assert found.effect is None and found.holds is None and found.reason
    assert "could not be measured" in remeasured_line(found)


def test_links_are_chosen_at_random_and_the_same_seed_chooses_the_same(links: list[Link]) -> None:
    many = [replace(links[0], commit=f"{n:040x}") for n in range(50)]
    picks = [chosen(many, 3, seed) for seed in range(20)]
    assert picks[0] == chosen(many, 3, 0) and len({tuple(pick) for pick in picks}) > 10
    assert all(pick == sorted(pick, key=lambda link: link.commit) for pick in picks)
    assert chosen(many, 99, 0) == many
