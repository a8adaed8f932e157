"""Options that nothing came of: what only the end of a run can tell to be a slip of the pen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dataeng.config import Pipeline
from dataeng.engine.records import TaskRecord
from dataeng.errors import nearest
from dataeng.stages.tokens.write_packs import WritePacks


def unused_options(pipeline: Pipeline, records: Mapping[str, list[TaskRecord]]) -> Iterator[str]:
    """Yields a line per domain of ``write_packs.objectives`` that no document had.

    Nobody knows the domains before: rules, records and stages of others' give them. Perhaps all documents of one were
    dropped; perhaps its name is misspelt, and they were packed with the objective of all others.
    """
    shards = (shard for group in records.values() for r in group for found in r.shards.values() for shard in found)
    domains = {shard["domain"] for shard in shards if "domain" in shard}
    for step in pipeline.steps:
        if isinstance(step.stage, WritePacks):
            for domain in step.stage.objectives:
                if domain not in domains:
                    yield (
                        f"{step.name}.objectives: no document was of the domain '{domain}', so its objective was not "
                        f"used{nearest(domain, domains)}"
                    )
