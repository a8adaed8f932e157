"""The option `dedup_index` of deduplicating stages: which index, and whether what is left is added to it.

    dedup_index: {path: ../index, add: true}

A run reads the segments that were there before its own: where the index has one of its own, those up to it, otherwise
all. So running again compares with the same old documents as before, whoever has added what since, and never with its
own; and of two runs that add at the same time, the second one sees the first one's segment when it runs again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from dataeng.errors import PlanError
from dataeng.formats.dedup_index import SEGMENT_NAME, Index, Origin, check_method, damages, has_index, load_index
from dataeng.stage import PipelinePath


class DedupIndex(BaseModel):
    """What earlier runs kept: new documents like those are duplicates of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: PipelinePath = Field(description="The index's folder")
    add: bool = Field(default=False, description="Add the documents that are left as a segment of their own")
    segment: str | None = Field(
        default=None, pattern=SEGMENT_NAME, description="What that segment is called; null: as the run folder is"
    )
    store: Literal["shingles", "signature"] = Field(
        default="shingles", description="What is kept of documents to compare new ones with"
    )
    _read: tuple[Origin, ...] = PrivateAttr(default=())
    _run: str = PrivateAttr(default="")

    def planned(self, run_dir: Path, method: str, parameters: Mapping[str, Any]) -> Self:
        """Returns the option with the segment's name, and with what is to be read of the index as it is now.

        Raises:
          PlanError: there is no index and none is to be made; it is of another method or of other parameters; the
            segment was added by another run; a file is missing or of another size.
          FormatError: the manifest is damaged.
        """
        run_dir = run_dir.resolve()
        name = self.segment or re.sub(r"[^A-Za-z0-9._-]+", "_", run_dir.name).lstrip("._-") or "run"
        planned = self.model_copy(update={"segment": name})
        planned._run = str(run_dir)
        if not has_index(self.path):
            if not self.add:
                raise PlanError(f"there is no dedup index at {self.path}; a first run makes one with `add: true`.")
            return planned
        index = load_index(self.path)
        check_method(index, self.path, method, parameters)
        planned._read = planned._older(index)
        wanted = {origin.name for origin in planned._read}
        damaged = next(damages(self.path, [s for s in index.segments if wanted & set(s.names)]), None)
        if damaged is not None:
            raise PlanError(
                f"the dedup index at {self.path} is damaged: {damaged}. Run the pipeline that added the segment again: "
                "it restores it."
            )
        return planned

    def _older(self, index: Index) -> tuple[Origin, ...]:
        """Returns what stands before the run's own segment."""
        if not self.add:
            return index.origins
        for position, origin in enumerate(index.origins):
            if origin.name == self.segment:
                if origin.run != self._run:
                    raise PlanError(
                        f"segment '{origin.name}' of the dedup index at {self.path} was added by the run in "
                        f"{origin.run}, not by this one in {self._run}. Give this one another name (`segment:`)."
                    )
                return index.origins[:position]
        return index.origins

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What is read, in order; after `planned`."""
        return self._read

    @property
    def run(self) -> str:
        """The run folder; after `planned`."""
        return self._run

    def side_inputs(self) -> dict[str, str]:
        """Returns the segments that are read, as `dataeng.stage.Stage.side_inputs` does."""
        return {f"index: segment {origin.name}": origin.digest for origin in self._read}
