"""Published mixtures as examples: the shares of GPT-3 and of LLaMA, for packs whose domains are named like theirs.

The numbers are the papers' own. They were chosen for those corpora, in that order of size; on other corpora the same
shares mean other numbers of epochs, which is what `dataeng mix` shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataeng.errors import ConfigError, nearest


@dataclass(frozen=True)
class Part:
    """One row of a published table."""

    name: str
    percent: float  # of training tokens, as printed
    epochs: float  # as printed, for the paper's own corpus and budget
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A published table."""

    name: str
    source: str
    parts: tuple[Part, ...]


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "gpt3",
            "Brown et al., arXiv 2005.14165, table 2.2 (300 B tokens; the printed percentages sum to 101)",
            (
                Part("common_crawl", 60, 0.44, ("commoncrawl", "cc", "web")),
                Part("webtext2", 22, 2.9, ("webtext", "openwebtext2", "openwebtext")),
                Part("books1", 8, 1.9),
                Part("books2", 8, 0.43),
                Part("wikipedia", 3, 3.4, ("wiki", "reference")),
            ),
        ),
        Recipe(
            "llama",
            "Touvron et al., arXiv 2302.13971, table 1 (1.4 T tokens)",
            (
                Part("common_crawl", 67, 1.10, ("commoncrawl", "cc", "web")),
                Part("c4", 15, 1.06),
                Part("github", 4.5, 0.64, ("code",)),
                Part("wikipedia", 4.5, 2.45, ("wiki", "reference")),
                Part("books", 4.5, 2.23, ("book",)),
                Part("arxiv", 2.5, 1.06, ("papers",)),
                Part("stackexchange", 2, 1.03, ("stack_exchange", "qa")),
            ),
        ),
    )
}


def recipe_weights(
    name: str, num_tokens: Mapping[str, int], mapping: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Returns a weight for each domain of ``num_tokens``, from the recipe's percentages, scaled to sum to 1.

    A domain stands for the part of its own name, of one of the part's aliases, or that ``mapping`` (domain → part)
    gives it. Domains that stand for one part share its weight in proportion to their tokens.

    Raises `ConfigError` for an unknown recipe, domain or part, and when a domain has no part or a part no domain: then
    the recipe says nothing about this corpus that a person did not decide, and it names both sides.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe '{name}'{nearest(name, RECIPES)}")
    recipe = RECIPES[name]
    part_of = _parts_by_domain(recipe, list(num_tokens), mapping or {})
    strangers = [domain for domain in num_tokens if domain not in part_of]
    missing = [part.name for part in recipe.parts if part.name not in part_of.values()]
    if strangers or missing:
        unfit = f"no part fits {', '.join(strangers)}" if strangers else ""
        unfilled = f"no domain is {', '.join(missing)}" if missing else ""
        parts = ", ".join(part.name for part in recipe.parts)
        raise ConfigError(
            f"recipe '{name}' has the parts {parts}, the packs have the domains {', '.join(num_tokens)}: "
            f"{' and '.join(filter(None, (unfit, unfilled)))}. "
            "Say what stands for what with --map DOMAIN=PART, or give --weight for each domain."
        )
    total = sum(part.percent for part in recipe.parts)
    weights = {}
    for domain, tokens in num_tokens.items():
        together = sum(num_tokens[other] for other, part in part_of.items() if part == part_of[domain])
        percent = next(part.percent for part in recipe.parts if part.name == part_of[domain])
        weights[domain] = percent / total * tokens / together
    return weights


def _parts_by_domain(recipe: Recipe, domains: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    names = [part.name for part in recipe.parts]
    for domain, part in mapping.items():
        if domain not in domains:
            raise ConfigError(f"--map {domain}={part}: '{domain}' is no domain of the packs{nearest(domain, domains)}")
        if part not in names:
            raise ConfigError(f"--map {domain}={part}: recipe '{recipe.name}' has no '{part}'{nearest(part, names)}")
    found = {}
    for domain in domains:
        if domain in mapping:
            found[domain] = mapping[domain]
            continue
        plain = domain.replace("-", "_")
        fitting = [part.name for part in recipe.parts if plain == part.name or plain in part.aliases]
        if fitting:
            found[domain] = fitting[0]
    return found
