"""What each Unicode character is, as tables that kernels index by code point.

Letters, spaces and cases are those of the running Python. The punctuation sets are copied from the code whose rules
are reproduced: datatrove (Apache-2.0, ``datatrove/utils/text.py``, 0.10.1) and spaCy's tokenizer (MIT,
``spacy/lang/char_classes.py`` and ``spacy/lang/punctuation.py``, 3.8).
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.text import CODE_POINT_LIMIT

# Bits of the class table (uint16).
SPACE = 1  # str.isspace
ALPHA = 2  # str.isalpha
PUNCTUATION = 4  # datatrove's PUNCTUATION_SET; a word of nothing else is a "symbol word"
TERMINAL = 8  # datatrove's TERMINAL_PUNCTUATION: ends a line (FineWeb) or a sentence
PREFIX = 16  # spaCy splits it off the front of a chunk
SUFFIX = 32  # spaCy splits it off the end of a chunk
LOWER = 64  # ALPHA and not upper case (so letters without case are both LOWER and UPPER, as in spaCy)
UPPER = 128
QUOTE = 256
DIGIT = 512  # 0-9 only
BEFORE_PERIOD = 1024  # a final period is split off after one of these
INFIX = 2048  # may split a chunk in the middle
ICON = 4096  # symbols and emoji: Unicode category So
CURRENCY = 8192
LETTER_J = 16384  # j and J, where "javascript" may start

#: ``datatrove.utils.text.PUNCTUATION`` (which `simplify_text` turns into spaces): signs, then control characters.
DATATROVE_PUNCTUATION = (
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(chr(x) for low, high in ((0, 9), (11, 13), (13, 32), (127, 160)) for x in range(low, high))
)

#: ``datatrove.utils.text.TERMINAL_PUNCTUATION``, about 150 signs that end a sentence, in all scripts.
DATATROVE_TERMINAL = (
    "!.?\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b\u1362"
    "\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u17d6\u17d9\u17da\u1803\u1809\u1944\u1945\u1aa8\u1aa9\u1aaa\u1aab\u1b5a"
    "\u1b5b\u1b5e\u1b5f\u1b7d\u1b7e\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047\u2048\u2049\u2e2e\u2e3c\u2e53\u2e54\u3002"
    "\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d\uaa5e\uaa5f\uaaf0\uaaf1\uabeb\ufe52"
    "\ufe56\ufe57\uff01\uff0e\uff1f\uff61\U00010a56\U00010a57\U00010f55\U00010f56\U00010f57\U00010f58\U00010f59"
    "\U00010f86\U00010f87\U00010f88\U00010f89\U00011047\U00011048\U000110be\U000110bf\U000110c0\U000110c1\U00011141"
    "\U00011142\U00011143\U000111c5\U000111c6\U000111cd\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c"
    "\U000112a9\U0001144b\U0001144c\U000115c2\U000115c3\U000115c9\U000115ca\U000115cb\U000115cc\U000115cd\U000115ce"
    "\U000115cf\U000115d0\U000115d1\U000115d2\U000115d3\U000115d4\U000115d5\U000115d6\U000115d7\U00011641\U00011642"
    "\U0001173c\U0001173d\U0001173e\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42"
    "\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016e98"
    "\U0001bc9f\U0001da88"
)

SPACY_PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
SPACY_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧\u2329\u232a"
SPACY_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
SPACY_OTHER_PREFIXES = "§%=—–+"
SPACY_OTHER_SUFFIXES = "—–"
SPACY_INFIXES = ".…,-–—~:<>=/+*^"

#: Characters that have properties of interest all lie below; above are unassigned, private or tag characters.
_LAST_PLANE = 0x40000


def _mark(table: NDArray[np.uint16], characters: str, bit: int) -> None:
    table[[ord(character) for character in characters]] |= np.uint16(bit)


@functools.cache
def class_table() -> NDArray[np.uint16]:
    """Returns the class bits of every code point, uint16 [`CODE_POINT_LIMIT`], read-only."""
    characters = np.arange(_LAST_PLANE, dtype=np.uint32).view("U1")
    table = np.zeros(CODE_POINT_LIMIT, np.uint16)
    known = table[:_LAST_PLANE]
    alpha, upper, lower = np.strings.isalpha(characters), np.strings.isupper(characters), np.strings.islower(characters)
    known |= np.where(np.strings.isspace(characters), SPACE, 0).astype(np.uint16)
    known |= np.where(alpha, ALPHA | BEFORE_PERIOD, 0).astype(np.uint16)
    known |= np.where(alpha & ~upper, LOWER, 0).astype(np.uint16)
    known |= np.where(alpha & ~lower, UPPER, 0).astype(np.uint16)
    known[alpha & upper] &= np.uint16(0xFFFF ^ BEFORE_PERIOD)
    icons = [i for i in range(0x20000) if unicodedata.category(chr(i)) == "So"]
    table[icons] |= np.uint16(ICON | PREFIX | SUFFIX | INFIX)
    _mark(table, DATATROVE_PUNCTUATION + DATATROVE_TERMINAL, PUNCTUATION)
    _mark(table, DATATROVE_TERMINAL, TERMINAL)
    _mark(table, SPACY_PUNCTUATION, PREFIX | SUFFIX | BEFORE_PERIOD)
    _mark(table, SPACY_QUOTES, PREFIX | SUFFIX | QUOTE | BEFORE_PERIOD)
    _mark(table, SPACY_CURRENCY, PREFIX | CURRENCY)
    _mark(table, SPACY_OTHER_PREFIXES, PREFIX)
    _mark(table, SPACY_OTHER_SUFFIXES, SUFFIX)
    _mark(table, SPACY_INFIXES, INFIX)
    _mark(table, "0123456789", DIGIT | BEFORE_PERIOD)
    _mark(table, "%²-+", BEFORE_PERIOD)
    _mark(table, "jJ", LETTER_J)
    table.flags.writeable = False
    return table
