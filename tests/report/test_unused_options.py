"""A slip in a domain's name is told at the end of a run."""

from __future__ import annotations

from dataeng.config import load_pipeline
from dataeng.report.unused_options import unused_options
from tests.small_run import SmallRun


def test_an_objective_of_a_domain_that_no_document_has_is_named(own: SmallRun) -> None:
    objectives = "write_packs.objectives={cod: {kind: plain_text}, web: {kind: plain_text}}"
    records = own.run(objectives).records
    pipeline = load_pipeline(own.file, [objectives], allow_code=True)
    assert list(unused_options(pipeline, records)) == [
        "write_packs.objectives: no document was of the domain 'cod', so its objective was not used; did you mean "
        "'code'?"
    ]
    assert not list(unused_options(load_pipeline(own.file, allow_code=True), records))
