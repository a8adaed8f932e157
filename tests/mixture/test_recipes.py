"""Published tables: their numbers, which domain stands for what, and what is refused."""

from __future__ import annotations

import pytest

from dataeng.errors import ConfigError
from dataeng.mixture.recipes import RECIPES, recipe_weights

GPT3 = {"web": 10, "webtext2": 10, "books1": 10, "books2": 10, "wikipedia": 10}


def test_the_tables_are_those_of_the_papers() -> None:
    assert [part.percent for part in RECIPES["gpt3"].parts] == [60, 22, 8, 8, 3]
    assert sum(part.percent for part in RECIPES["llama"].parts) == 100
    # Shares and epochs of one budget give the sizes that the papers print: 410, 19, 12, 55, 3 and, in GB, 83 and 85.
    sizes = [300 * part.percent / 100 / part.epochs for part in RECIPES["gpt3"].parts]
    assert sizes == pytest.approx([410, 19, 12, 55, 3], rel=0.25)


def test_weights_are_percentages_scaled() -> None:
    weights = recipe_weights("gpt3", GPT3)
    assert weights["web"] == pytest.approx(60 / 101) and weights["wikipedia"] == pytest.approx(3 / 101)
    assert sum(weights.values()) == pytest.approx(1)


def test_domains_that_stand_for_one_part_share_it_by_their_tokens() -> None:
    tokens = {"web-en": 30, "web-de": 10, **{name: count for name, count in GPT3.items() if name != "web"}}
    weights = recipe_weights("gpt3", tokens, {"web-en": "common_crawl", "web-de": "common_crawl"})
    assert weights["web-en"] == pytest.approx(45 / 101) and weights["web-de"] == pytest.approx(15 / 101)


@pytest.mark.parametrize(
    ("tokens", "mapping", "message"),
    [
        (GPT3 | {"code": 5}, {}, r"the parts common_crawl, .*: no part fits code\. Say what"),
        ({"web": 1, "wiki": 1}, {}, r"domains web, wiki: no domain is webtext2, books1, books2\."),
        ({"web": 1, "code": 1}, {}, "no part fits code and no domain is webtext2, books1, books2, wikipedia"),
        (GPT3, {"wep": "books1"}, "--map wep=books1: 'wep' is no domain of the packs; did you mean 'web'"),
        (GPT3, {"web": "book1"}, "--map web=book1: recipe 'gpt3' has no 'book1'; did you mean 'books1'"),
        (GPT3, {"web": "books1"}, "no domain is common_crawl"),
    ],
)
def test_what_a_recipe_does_not_say_is_asked(tokens: dict[str, int], mapping: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_weights("gpt3", tokens, mapping)
