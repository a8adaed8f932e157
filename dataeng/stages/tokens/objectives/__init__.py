"""What can be made of a document when it becomes a row of a pack: the objectives that `write_packs` knows."""

from typing import Annotated

from pydantic import Field

from dataeng.stages.tokens.objectives.chat import Chat
from dataeng.stages.tokens.objectives.fim import Fim
from dataeng.stages.tokens.objectives.masked_lm import MaskedLm
from dataeng.stages.tokens.objectives.objective import Objective, PlainText
from dataeng.stages.tokens.objectives.span_corruption import SpanCorruption

OBJECTIVES: dict[str, type[Objective]] = {
    "plain_text": PlainText,
    "fim": Fim,
    "span_corruption": SpanCorruption,
    "masked_lm": MaskedLm,
    "chat": Chat,
}
"""Every objective by its ``kind``."""

AnyObjective = Annotated[PlainText | Fim | SpanCorruption | MaskedLm | Chat, Field(discriminator="kind")]
"""The type of ``write_packs.objective``: any of them, told apart by ``kind``."""

__all__ = ["OBJECTIVES", "AnyObjective", "Objective", "PlainText"]
