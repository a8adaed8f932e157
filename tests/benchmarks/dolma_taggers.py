"""CPU seconds of Dolma's quality taggers, run by `signals.py` with an interpreter that has dolma 1.2.1 installed.

Reads a JSON list of texts from standard input; prints JSON: seconds by tagger.
"""

from __future__ import annotations

import json
import sys
import time

TAGGERS = ("gopher_v1", "gopher_v2", "c4_v1", "c4_v2")


def main() -> None:
    texts = json.load(sys.stdin)
    import fasttext

    if not hasattr(fasttext, "train_supervised"):
        fasttext.train_supervised = (
            None  # fasttext-predict has no training; dolma imports it, these taggers do not use it
        )
    import dolma  # noqa: F401  (registers the taggers)
    from dolma.core.data_types import Document
    from dolma.core.registry import TaggerRegistry

    seconds = {}
    for name in TAGGERS:
        tagger = TaggerRegistry.get(name)()
        documents = [Document(source="", version="", id=str(i), text=text) for i, text in enumerate(texts)]
        tagger.predict(documents[0])
        started = time.process_time()
        for document in documents:
            tagger.predict(document)
        seconds[name] = time.process_time() - started
    json.dump(seconds, sys.stdout)


if __name__ == "__main__":
    main()
