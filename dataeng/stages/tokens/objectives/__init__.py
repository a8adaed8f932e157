"""What can be made of a document when it becomes a row of a pack: the objectives that `write_packs` knows."""

from dataeng.stages.tokens.objectives.objective import PlainText

AnyObjective = PlainText
"""The type of ``write_packs.objective``: a union of all objectives, told apart by ``kind``."""

__all__ = ["AnyObjective", "PlainText"]
