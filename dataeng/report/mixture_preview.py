"""What a token budget will contain, by stage, domain and language, from the packs' docs.parquet.

Only languages and token counts are read. In a shuffled domain every language is drawn in its share of the domain's
tokens. A curriculum reads its documents in order, so that a stage holds those of one stretch of the order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataeng.errors import FormatError
from dataeng.formats.mixture import Domain, MixtureManifest
from dataeng.formats.pack import load_manifest
from dataeng.mixture.plan import planned_shares
from dataeng.mixture.schedule import stage_lengths
from dataeng.mixture.weighting import WHOLE_RUN


@dataclass(frozen=True)
class PreviewRow:
    """What a stage (or the whole run) draws of one language of one domain."""

    stage: str
    domain: str
    language: str | None  # None: the documents do not say
    num_documents: int  # in the packs
    num_tokens: int  # in the packs
    documents_drawn: int  # of them, how many are read at least once (in a shuffled domain, expected)
    tokens_drawn: int
    epochs: float


@dataclass(frozen=True)
class _Language:
    """One language of a domain, and how much of it lies before each of the positions that were asked for."""

    name: str | None
    num_documents: int
    num_tokens: int
    documents_before: tuple[float, ...]
    tokens_before: tuple[float, ...]


def preview(manifest: MixtureManifest, manifest_path: Path, token_budget: int) -> list[PreviewRow]:
    """Returns rows for the whole run (stage `WHOLE_RUN`), then, if there is a schedule, for each of its stages.

    Raises `FormatError` when the packs are not those of the manifest any more.
    """
    planned = planned_shares(manifest, token_budget)
    lengths = stage_lengths(planned)
    rows_by_stage: dict[str, list[PreviewRow]] = {
        name: [] for name in (WHOLE_RUN, *(stage.name for stage in manifest.schedule))
    }
    for index, (name, domain) in enumerate(manifest.domains.items()):
        draws = [
            float(length) * token_budget * float(shares[index])
            for length, (_, shares) in zip(lengths, planned, strict=True)
        ]
        ends = [0.0]
        for drawn in draws:
            ends.append(ends[-1] + drawn)
        languages = _languages(name, domain, manifest_path, ends)
        spans = [(WHOLE_RUN, 0, len(draws))]
        spans += [(stage.name, i, i + 1) for i, stage in enumerate(manifest.schedule)]
        for stage, first, last in spans:
            for language in languages:
                documents = language.documents_before[last] - language.documents_before[first]
                tokens = language.tokens_before[last] - language.tokens_before[first]
                if tokens <= 0:
                    continue
                rows_by_stage[stage].append(
                    PreviewRow(
                        stage,
                        name,
                        language.name,
                        language.num_documents,
                        language.num_tokens,
                        min(language.num_documents, math.ceil(documents - 1e-6)),
                        round(tokens),
                        tokens / language.num_tokens,
                    )
                )
    return [row for rows in rows_by_stage.values() for row in rows]


def _languages(name: str, domain: Domain, manifest_path: Path, ends: Sequence[float]) -> list[_Language]:
    """Returns a domain's languages, the largest first, with what is read of each up to each of ``ends`` tokens."""
    files, unlisted_documents, unlisted_tokens = [], 0, 0
    for pack in domain.packs:
        folder = (manifest_path.parent / pack).resolve()  # the manifest's own folder may not be there yet
        for shard in load_manifest(folder).shards:
            if "docs" in shard.files:
                files.append(folder / shard.files["docs"].name)
            else:
                unlisted_documents += shard.num_documents
                unlisted_tokens += shard.num_tokens
    total = domain.num_tokens
    positions = [end % total for end in ends]
    found = _query(files, domain, positions) if files else []
    if unlisted_tokens:
        share = [position / total for position in positions]
        found.append(
            (
                None,
                unlisted_documents,
                unlisted_tokens,
                [unlisted_documents * part for part in share],
                [unlisted_tokens * part for part in share],
            )
        )
    counted = sum(tokens for _, _, tokens, _, _ in found)
    if counted != total:
        raise FormatError(
            f"the packs of domain '{name}' have changed: their documents have {counted:,} tokens, {manifest_path} "
            f"expects {total:,}. Run `dataeng mix` on the present packs."
        )
    passes = [math.floor(end / total) for end in ends]
    return [
        _Language(
            language,
            documents,
            tokens,
            tuple(passed * documents + part for passed, part in zip(passes, documents_before, strict=True)),
            tuple(passed * tokens + part for passed, part in zip(passes, tokens_before, strict=True)),
        )
        for language, documents, tokens, documents_before, tokens_before in found
        if tokens
    ]


def _query(
    files: Sequence[Path], domain: Domain, positions: Sequence[float]
) -> list[tuple[str | None, int, int, list[float], list[float]]]:
    """Counts documents and tokens by language, in all and up to each position of one pass over the domain."""
    import duckdb

    connection = duckdb.connect()
    try:
        source = connection.read_parquet([str(file) for file in files], union_by_name=True)
        source.create_view("docs")
        language = '"language"' if "language" in source.columns else "NULL::VARCHAR"
        if domain.order is None:
            parts = [
                f"n * {position / domain.num_tokens:.17e}, t * {position / domain.num_tokens:.17e}"
                for position in positions
            ]
            statement = (
                f"SELECT language, n, t, {', '.join(parts)} FROM (SELECT {language} AS language, count(*) AS n, "
                "sum(num_tokens)::BIGINT AS t FROM docs GROUP BY ALL) ORDER BY t DESC, language"
            )
        else:
            by = '"' + domain.order.by.replace('"', '""') + '"'
            direction = "DESC" if domain.order.descending else "ASC"
            parts = [
                f"count(*) FILTER (start < {position:.17e})::DOUBLE, "
                f"sum(greatest(0, least(num_tokens, {position:.17e} - start)))::DOUBLE"
                for position in positions
            ]
            statement = (
                f"SELECT language, count(*), sum(num_tokens)::BIGINT AS t, {', '.join(parts)} FROM (SELECT {language} "
                f"AS language, num_tokens, sum(num_tokens) OVER (ORDER BY {by} {direction} NULLS LAST ROWS UNBOUNDED "
                "PRECEDING) - num_tokens AS start FROM docs) GROUP BY ALL ORDER BY t DESC, language"
            )
        rows: list[tuple[Any, ...]] = connection.sql(statement).fetchall()
    except duckdb.Error as error:
        raise FormatError(f"cannot read the documents of {files[0].parent}: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()
    return [(row[0], row[1], row[2], list(row[3::2]), list(row[4::2])) for row in rows]


def by_stage(rows: Sequence[PreviewRow]) -> dict[str, list[PreviewRow]]:
    """Returns the rows of each stage, in their order."""
    grouped: dict[str, list[PreviewRow]] = {}
    for row in rows:
        grouped.setdefault(row.stage, []).append(row)
    return grouped
