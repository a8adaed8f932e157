"""Chunks that spaCy's tokenizer for English cuts in its own way: contractions, abbreviations and emoticons.

Copied from spaCy 3.8 (MIT, ``tokenizer_exceptions.py`` in ``spacy/lang/en`` and ``spacy/lang``), without the entries of
white space, of a single character, and of more than `MAX_SPECIAL_BYTES`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataeng.kernels.compiling import inlined
from dataeng.kernels.text import hash_word

#: Between the pieces of an entry below.
SEPARATOR = "␟"

#: Entries that are several words.
CUT = r"""
10␟a.m. 10␟am 10␟p.m. 10␟pm 11␟a.m. 11␟am 11␟p.m. 11␟pm 12␟a.m. 12␟am 12␟p.m. 12␟pm 1␟a.m. 1␟am 1␟p.m. 1␟pm 2␟a.m.
2␟am 2␟p.m. 2␟pm 3␟a.m. 3␟am 3␟p.m. 3␟pm 4␟a.m. 4␟am 4␟p.m. 4␟pm 5␟a.m. 5␟am 5␟p.m. 5␟pm 6␟a.m. 6␟am 6␟p.m. 6␟pm
7␟a.m. 7␟am 7␟p.m. 7␟pm 8␟a.m. 8␟am 8␟p.m. 8␟pm 9␟a.m. 9␟am 9␟p.m. 9␟pm Ai␟n't Ai␟nt Ai␟n’t Are␟n't Are␟nt Are␟n’t
C'm␟on Ca␟n't Ca␟n't␟'ve Can␟not Ca␟nt Ca␟nt␟ve Ca␟n’t Ca␟n’t␟’ve Could␟'ve Could␟n't Could␟n't␟'ve Could␟nt
Could␟nt␟ve Could␟n’t Could␟n’t␟’ve Could␟ve Could␟’ve C’m␟on Dare␟n't Dare␟nt Dare␟n’t Did␟n't Did␟n't␟'ve Did␟nt
Did␟nt␟ve Did␟n’t Did␟n’t␟’ve Does␟n't Does␟n't␟'ve Does␟nt Does␟nt␟ve Does␟n’t Does␟n’t␟’ve Do␟n't Do␟n't␟'ve Do␟nt
Do␟nt␟ve Do␟n’t Do␟n’t␟’ve Gon␟na Got␟ta Had␟n't Had␟n't␟'ve Had␟nt Had␟nt␟ve Had␟n’t Had␟n’t␟’ve Has␟n't Has␟nt
Has␟n’t Have␟n't Have␟nt Have␟n’t He␟'d He␟'d␟'ve He␟'ll He␟'ll␟'ve He␟'s He␟d He␟d␟ve He␟ll␟ve He␟s He␟’d He␟’d␟’ve
He␟’ll He␟’ll␟’ve He␟’s How␟'d How␟'d␟'ve How␟'d␟'y How␟'ll How␟'ll␟'ve How␟'re How␟'s How␟'ve How␟d How␟d␟ve How␟ll
How␟ll␟ve How␟re How␟s How␟ve How␟’d How␟’d␟’ve How␟’d␟’y How␟’ll How␟’ll␟’ve How␟’re How␟’s How␟’ve I␟'d I␟'d␟'ve
I␟'ll I␟'ll␟'ve I␟'m I␟'m␟a I␟'ve I␟d I␟d␟ve I␟ll␟ve I␟m I␟m␟a Is␟n't Is␟nt Is␟n’t It␟'d It␟'d␟'ve It␟'ll It␟'ll␟'ve
It␟'s It␟d It␟d␟ve It␟ll It␟ll␟ve It␟’d It␟’d␟’ve It␟’ll It␟’ll␟’ve It␟’s I␟ve I␟’d I␟’d␟’ve I␟’ll I␟’ll␟’ve I␟’m
I␟’m␟a I␟’ve Let␟'s Let␟’s May␟n't May␟n't␟'ve May␟nt May␟nt␟ve May␟n’t May␟n’t␟’ve Might␟'ve Might␟n't
Might␟n't␟'ve Might␟nt Might␟nt␟ve Might␟n’t Might␟n’t␟’ve Might␟ve Might␟’ve Must␟'ve Must␟n't Must␟n't␟'ve Must␟nt
Must␟nt␟ve Must␟n’t Must␟n’t␟’ve Must␟ve Must␟’ve Need␟n't Need␟n't␟'ve Need␟nt Need␟nt␟ve Need␟n’t Need␟n’t␟’ve
Not␟'ve Not␟ve Not␟’ve Ought␟n't Ought␟n't␟'ve Ought␟nt Ought␟nt␟ve Ought␟n’t Ought␟n’t␟’ve Sha␟n't Sha␟n't␟'ve
Sha␟nt Sha␟nt␟ve Sha␟n’t Sha␟n’t␟’ve She␟'d She␟'d␟'ve She␟'ll She␟'ll␟'ve She␟'s She␟d␟ve She␟ll␟ve She␟s She␟’d
She␟’d␟’ve She␟’ll She␟’ll␟’ve She␟’s Should␟'ve Should␟n't Should␟n't␟'ve Should␟nt Should␟nt␟ve Should␟n’t
Should␟n’t␟’ve Should␟ve Should␟’ve That␟'d That␟'d␟'ve That␟'ll That␟'ll␟'ve That␟'s That␟d That␟d␟ve That␟ll
That␟ll␟ve That␟s That␟’d That␟’d␟’ve That␟’ll That␟’ll␟’ve That␟’s There␟'d There␟'d␟'ve There␟'ll There␟'ll␟'ve
There␟'re There␟'s There␟'ve There␟d There␟d␟ve There␟ll There␟ll␟ve There␟re There␟s There␟ve There␟’d There␟’d␟’ve
There␟’ll There␟’ll␟’ve There␟’re There␟’s There␟’ve These␟'d These␟'d␟'ve These␟'ll These␟'ll␟'ve These␟'re
These␟'ve These␟d These␟d␟ve These␟ll These␟ll␟ve These␟re These␟ve These␟’d These␟’d␟’ve These␟’ll These␟’ll␟’ve
These␟’re These␟’ve They␟'d They␟'d␟'ve They␟'ll They␟'ll␟'ve They␟'re They␟'ve They␟d They␟d␟ve They␟ll They␟ll␟ve
They␟re They␟ve They␟’d They␟’d␟’ve They␟’ll They␟’ll␟’ve They␟’re They␟’ve This␟'d This␟'d␟'ve This␟'ll
This␟'ll␟'ve This␟'s This␟d This␟d␟ve This␟ll This␟ll␟ve This␟s This␟’d This␟’d␟’ve This␟’ll This␟’ll␟’ve This␟’s
Those␟'d Those␟'d␟'ve Those␟'ll Those␟'ll␟'ve Those␟'re Those␟'ve Those␟d Those␟d␟ve Those␟ll Those␟ll␟ve Those␟re
Those␟ve Those␟’d Those␟’d␟’ve Those␟’ll Those␟’ll␟’ve Those␟’re Those␟’ve Was␟n't Was␟nt Was␟n’t We␟'d We␟'d␟'ve
We␟'ll We␟'ll␟'ve We␟'re We␟'ve We␟d We␟d␟ve We␟ll␟ve Were␟n't Were␟nt Were␟n’t We␟ve We␟’d We␟’d␟’ve We␟’ll
We␟’ll␟’ve We␟’re We␟’ve What␟'d What␟'d␟'ve What␟'ll What␟'ll␟'ve What␟'re What␟'s What␟'ve What␟d What␟d␟ve
What␟ll What␟ll␟ve What␟re What␟s What␟ve What␟’d What␟’d␟’ve What␟’ll What␟’ll␟’ve What␟’re What␟’s What␟’ve
When␟'d When␟'d␟'ve When␟'ll When␟'ll␟'ve When␟'re When␟'s When␟'ve When␟d When␟d␟ve When␟ll When␟ll␟ve When␟re
When␟s When␟ve When␟’d When␟’d␟’ve When␟’ll When␟’ll␟’ve When␟’re When␟’s When␟’ve Where␟'d Where␟'d␟'ve Where␟'ll
Where␟'ll␟'ve Where␟'re Where␟'s Where␟'ve Where␟d Where␟d␟ve Where␟ll Where␟ll␟ve Where␟re Where␟s Where␟ve
Where␟’d Where␟’d␟’ve Where␟’ll Where␟’ll␟’ve Where␟’re Where␟’s Where␟’ve Who␟'d Who␟'d␟'ve Who␟'ll Who␟'ll␟'ve
Who␟'re Who␟'s Who␟'ve Who␟d Who␟d␟ve Who␟ll Who␟ll␟ve Who␟s Who␟ve Who␟’d Who␟’d␟’ve Who␟’ll Who␟’ll␟’ve Who␟’re
Who␟’s Who␟’ve Why␟'d Why␟'d␟'ve Why␟'ll Why␟'ll␟'ve Why␟'re Why␟'s Why␟'ve Why␟d Why␟d␟ve Why␟ll Why␟ll␟ve Why␟re
Why␟s Why␟ve Why␟’d Why␟’d␟’ve Why␟’ll Why␟’ll␟’ve Why␟’re Why␟’s Why␟’ve Wo␟n't Wo␟n't␟'ve Wo␟nt Wo␟nt␟ve Wo␟n’t
Wo␟n’t␟’ve Would␟'ve Would␟n't Would␟n't␟'ve Would␟nt Would␟nt␟ve Would␟n’t Would␟n’t␟’ve Would␟ve Would␟’ve You␟'d
You␟'d␟'ve You␟'ll You␟'ll␟'ve You␟'re You␟'ve You␟d You␟d␟ve You␟ll You␟ll␟ve You␟re You␟ve You␟’d You␟’d␟’ve
You␟’ll You␟’ll␟’ve You␟’re You␟’ve ai␟n't ai␟nt ai␟n’t are␟n't are␟nt are␟n’t c'm␟on ca␟n't ca␟n't␟'ve can␟not
ca␟nt ca␟nt␟ve ca␟n’t ca␟n’t␟’ve could␟'ve could␟n't could␟n't␟'ve could␟nt could␟nt␟ve could␟n’t could␟n’t␟’ve
could␟ve could␟’ve c’m␟on dare␟n't dare␟nt dare␟n’t did␟n't did␟n't␟'ve did␟nt did␟nt␟ve did␟n’t did␟n’t␟’ve
does␟n't does␟n't␟'ve does␟nt does␟nt␟ve does␟n’t does␟n’t␟’ve do␟n't do␟n't␟'ve do␟nt do␟nt␟ve do␟n’t do␟n’t␟’ve
gon␟na got␟ta had␟n't had␟n't␟'ve had␟nt had␟nt␟ve had␟n’t had␟n’t␟’ve has␟n't has␟nt has␟n’t have␟n't have␟nt
have␟n’t he␟'d he␟'d␟'ve he␟'ll he␟'ll␟'ve he␟'s he␟d he␟d␟ve he␟ll␟ve he␟s he␟’d he␟’d␟’ve he␟’ll he␟’ll␟’ve he␟’s
how␟'d how␟'d␟'ve how␟'d␟'y how␟'ll how␟'ll␟'ve how␟'re how␟'s how␟'ve how␟d how␟d␟ve how␟ll how␟ll␟ve how␟re how␟s
how␟ve how␟’d how␟’d␟’ve how␟’d␟’y how␟’ll how␟’ll␟’ve how␟’re how␟’s how␟’ve i␟'d i␟'d␟'ve i␟'ll i␟'ll␟'ve i␟'m
i␟'m␟a i␟'ve i␟d i␟d␟ve i␟ll␟ve i␟m i␟m␟a is␟n't is␟nt is␟n’t it␟'d it␟'d␟'ve it␟'ll it␟'ll␟'ve it␟'s it␟d it␟d␟ve
it␟ll it␟ll␟ve it␟’d it␟’d␟’ve it␟’ll it␟’ll␟’ve it␟’s i␟ve i␟’d i␟’d␟’ve i␟’ll i␟’ll␟’ve i␟’m i␟’m␟a i␟’ve let␟'s
let␟’s may␟n't may␟n't␟'ve may␟nt may␟nt␟ve may␟n’t may␟n’t␟’ve might␟'ve might␟n't might␟n't␟'ve might␟nt
might␟nt␟ve might␟n’t might␟n’t␟’ve might␟ve might␟’ve must␟'ve must␟n't must␟n't␟'ve must␟nt must␟nt␟ve must␟n’t
must␟n’t␟’ve must␟ve must␟’ve need␟n't need␟n't␟'ve need␟nt need␟nt␟ve need␟n’t need␟n’t␟’ve not␟'ve not␟ve not␟’ve
ought␟n't ought␟n't␟'ve ought␟nt ought␟nt␟ve ought␟n’t ought␟n’t␟’ve sha␟n't sha␟n't␟'ve sha␟nt sha␟nt␟ve sha␟n’t
sha␟n’t␟’ve she␟'d she␟'d␟'ve she␟'ll she␟'ll␟'ve she␟'s she␟d␟ve she␟ll␟ve she␟s she␟’d she␟’d␟’ve she␟’ll
she␟’ll␟’ve she␟’s should␟'ve should␟n't should␟n't␟'ve should␟nt should␟nt␟ve should␟n’t should␟n’t␟’ve should␟ve
should␟’ve that␟'d that␟'d␟'ve that␟'ll that␟'ll␟'ve that␟'s that␟d that␟d␟ve that␟ll that␟ll␟ve that␟s that␟’d
that␟’d␟’ve that␟’ll that␟’ll␟’ve that␟’s there␟'d there␟'d␟'ve there␟'ll there␟'ll␟'ve there␟'re there␟'s there␟'ve
there␟d there␟d␟ve there␟ll there␟ll␟ve there␟re there␟s there␟ve there␟’d there␟’d␟’ve there␟’ll there␟’ll␟’ve
there␟’re there␟’s there␟’ve these␟'d these␟'d␟'ve these␟'ll these␟'ll␟'ve these␟'re these␟'ve these␟d these␟d␟ve
these␟ll these␟ll␟ve these␟re these␟ve these␟’d these␟’d␟’ve these␟’ll these␟’ll␟’ve these␟’re these␟’ve they␟'d
they␟'d␟'ve they␟'ll they␟'ll␟'ve they␟'re they␟'ve they␟d they␟d␟ve they␟ll they␟ll␟ve they␟re they␟ve they␟’d
they␟’d␟’ve they␟’ll they␟’ll␟’ve they␟’re they␟’ve this␟'d this␟'d␟'ve this␟'ll this␟'ll␟'ve this␟'s this␟d
this␟d␟ve this␟ll this␟ll␟ve this␟s this␟’d this␟’d␟’ve this␟’ll this␟’ll␟’ve this␟’s those␟'d those␟'d␟'ve
those␟'ll those␟'ll␟'ve those␟'re those␟'ve those␟d those␟d␟ve those␟ll those␟ll␟ve those␟re those␟ve those␟’d
those␟’d␟’ve those␟’ll those␟’ll␟’ve those␟’re those␟’ve was␟n't was␟nt was␟n’t we␟'d we␟'d␟'ve we␟'ll we␟'ll␟'ve
we␟'re we␟'ve we␟d we␟d␟ve we␟ll␟ve were␟n't were␟nt were␟n’t we␟ve we␟’d we␟’d␟’ve we␟’ll we␟’ll␟’ve we␟’re we␟’ve
what␟'d what␟'d␟'ve what␟'ll what␟'ll␟'ve what␟'re what␟'s what␟'ve what␟d what␟d␟ve what␟ll what␟ll␟ve what␟re
what␟s what␟ve what␟’d what␟’d␟’ve what␟’ll what␟’ll␟’ve what␟’re what␟’s what␟’ve when␟'d when␟'d␟'ve when␟'ll
when␟'ll␟'ve when␟'re when␟'s when␟'ve when␟d when␟d␟ve when␟ll when␟ll␟ve when␟re when␟s when␟ve when␟’d
when␟’d␟’ve when␟’ll when␟’ll␟’ve when␟’re when␟’s when␟’ve where␟'d where␟'d␟'ve where␟'ll where␟'ll␟'ve where␟'re
where␟'s where␟'ve where␟d where␟d␟ve where␟ll where␟ll␟ve where␟re where␟s where␟ve where␟’d where␟’d␟’ve where␟’ll
where␟’ll␟’ve where␟’re where␟’s where␟’ve who␟'d who␟'d␟'ve who␟'ll who␟'ll␟'ve who␟'re who␟'s who␟'ve who␟d
who␟d␟ve who␟ll who␟ll␟ve who␟s who␟ve who␟’d who␟’d␟’ve who␟’ll who␟’ll␟’ve who␟’re who␟’s who␟’ve why␟'d
why␟'d␟'ve why␟'ll why␟'ll␟'ve why␟'re why␟'s why␟'ve why␟d why␟d␟ve why␟ll why␟ll␟ve why␟re why␟s why␟ve why␟’d
why␟’d␟’ve why␟’ll why␟’ll␟’ve why␟’re why␟’s why␟’ve wo␟n't wo␟n't␟'ve wo␟nt wo␟nt␟ve wo␟n’t wo␟n’t␟’ve would␟'ve
would␟n't would␟n't␟'ve would␟nt would␟nt␟ve would␟n’t would␟n’t␟’ve would␟ve would␟’ve y'␟all y␟all you␟'d
you␟'d␟'ve you␟'ll you␟'ll␟'ve you␟'re you␟'ve you␟d you␟d␟ve you␟ll you␟ll␟ve you␟re you␟ve you␟’d you␟’d␟’ve
you␟’ll you␟’ll␟’ve you␟’re you␟’ve y’␟all °␟C␟. °␟F␟. °␟K␟. °␟c␟. °␟f␟. °␟k␟.
"""

#: Entries that are one word, with the pieces that they would be cut into otherwise: where those stand side by side in a
#: longer chunk ("f(x):" ends in ")" and ":"), they become that word too.
WHOLE = r"""
'␟' '␟Cause '␟Cos '␟Coz '␟Cuz '␟S '␟bout '␟cause '␟cos '␟coz '␟cuz '␟d '␟em '␟ll '␟nuff '␟re '␟s (␟*␟_␟*␟) (␟-8
(␟-␟: (␟-␟; (␟-_-␟) (␟.␟_␟.␟) (␟: (␟; (␟= (␟>␟_␟<␟) (␟^_^␟) (␟o␟: (␟¬_¬␟) (␟ಠ_ಠ␟) )␟-␟: )␟: -_- -__- .␟_␟. 0.0 0.o
0_0 0_o 8␟) 8-␟) 8␟-␟D 8D :␟'␟( :␟'␟) :␟'␟-␟( :␟'␟-␟) :␟( :␟(␟( :␟(␟(␟( :␟(␟) :␟) :␟)␟) :␟)␟)␟) :␟* :␟-␟( :␟-␟(␟(
:␟-␟(␟(␟( :␟-␟) :␟-␟)␟) :␟-␟)␟)␟) :␟-␟* :␟-/ :␟-0 :␟-3 :␟-␟> :␟-D :␟-O :␟-P :␟-X :␟-␟] :␟-o :␟-p :␟-x :␟-| :␟-␟} :␟/
:␟0 :␟1 :␟3 :␟> :␟D :␟O :␟P :␟X :␟] :␟o :␟o␟) :␟p :␟x :␟| :␟} :␟’␟( :␟’␟) :␟’␟-␟( :␟’␟-␟) ;␟) ;␟-␟) ;␟-D ;␟D ;␟_␟;
<␟.␟< <␟/3 <␟3 <␟33 <␟333 <␟space␟> =␟( =␟) =␟/ =␟3 =␟D =␟[ =␟] =␟| >␟.␟< >␟.␟> >␟:␟( >␟:␟o >␟<␟(␟(␟(␟*␟> @_@ Adm␟.
Ak␟. Ala␟. Apr␟. Ariz␟. Ark␟. Aug␟. Bros␟. C++ Calif␟. Co␟. Colo␟. Conn␟. Corp␟. D.C. Dec␟. Del␟. Doin Doin␟' Doin␟’
Dr␟. E.G. E.g␟. Feb␟. Fla␟. Ga␟. Gen␟. Goin Goin␟' Goin␟’ Gov␟. Havin Havin␟' Havin␟’ I.E. I.e␟. Ia␟. Id␟. Ill␟.
Inc␟. Ind␟. Jan␟. Jr␟. Jul␟. Jun␟. Kan␟. Kans␟. Ky␟. La␟. Lovin Lovin␟' Lovin␟’ Ltd␟. Ma'am Mar␟. Mass␟. Ma’am Md␟.
Messrs␟. Mich␟. Minn␟. Miss␟. Mo␟. Mont␟. Mr␟. Mrs␟. Ms␟. Mt␟. N.C. N.D. N.H. N.J. N.M. N.Y. Neb␟. Nebr␟. Nev␟.
Nothin Nothin␟' Nothin␟’ Nov␟. Nuthin Nuthin␟' Nuthin␟’ O'clock O.O O.o O_O O_o Oct␟. Okla␟. Ol Ol␟' Ol␟’ Ore␟.
O’clock Pa␟. Ph␟.␟D. Prof␟. Rep␟. Rev␟. S.C. Sen␟. Sep␟. Sept␟. Somethin Somethin␟' Somethin␟’ St␟. Tenn␟. V.V V_V
Va␟. Wash␟. Wis␟. XD XDD [␟-␟: [␟: [␟= \␟"␟) \n \t ]␟= ^_^ ^__^ ^___^ a␟. a.m␟. and␟/␟or b␟. c␟. co␟. d␟. doin
doin␟' doin␟’ e␟. e.g␟. em f␟. g␟. goin goin␟' goin␟’ h␟. havin havin␟' havin␟’ i␟. i.e␟. j␟. k␟. l␟. ll lovin
lovin␟' lovin␟’ m␟. ma'am ma’am n␟. nothin nothin␟' nothin␟’ nuff nuthin nuthin␟' nuthin␟’ o'clock o␟. o.0 o␟.␟O o.o
o_0 o_O o_o ol ol␟' ol␟’ o’clock p␟. p.m␟. q␟. r␟. s␟. somethin somethin␟' somethin␟’ t␟. u␟. v␟. v.s␟. v.v v_v vs␟.
w␟. w␟/␟o x␟. xD xDD y␟. z␟. ¯\(ツ)/¯ ä␟. ö␟. ü␟. ಠ_ಠ ಠ︵ಠ ‘␟S ‘␟s ’␟Cause ’␟Cos ’␟Coz ’␟Cuz ’␟S ’␟bout ’␟cause ’␟cos
’␟coz ’␟cuz ’␟d ’␟em ’␟ll ’␟nuff ’␟re ’␟s ’␟’
"""

MAX_SPECIAL_BYTES = 16
MAX_PIECES = 8

_SLOTS = 4096
_SLOT_MASK = np.uint64(_SLOTS - 1)
_FILTER_MASK = np.uint64((1 << 16) - 1)
_SHIFT = np.uint64(20)
_SHIFT_FILTER = np.uint64(40)
_ONE = np.uint64(1)


def _tables() -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint8]]:
    keys, values = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.int32)
    low_bits = np.zeros(1 << 13, np.uint8)
    for text, is_cut in [(CUT, True), (WHOLE, False)]:
        for entry in text.split():
            parts = [part.encode() for part in entry.split(SEPARATOR)]
            value = hash_word(b"".join(parts))
            slot = (value >> int(_SHIFT)) & (_SLOTS - 1)
            while keys[slot]:
                slot = (slot + 1) % _SLOTS
            keys[slot] = value
            if is_cut:
                first = len(parts[0])
                second = first + len(parts[1]) if len(parts) > 2 else 0
                values[slot] = 1 | first << 8 | second << 16
            else:
                values[slot] = 1 | (len(parts) << 24 if len(parts) > 1 else 0)
            bit = (value >> int(_SHIFT_FILTER)) & int(_FILTER_MASK)
            low_bits[bit >> 3] |= 1 << (bit & 7)
    return keys, values, low_bits


KEYS, VALUES, FILTER = _tables()


@inlined
def special_case(value: np.uint64) -> int:
    """Looks up a chunk by `dataeng.kernels.text.hash_bytes`.

    Returns:
      0 if it is nothing special; else bit 0, then from bit 8 the bytes of its first word (0: it is one word), from bit
      16 those of its first two words (0: it has no more than two), from bit 24 the pieces that make it up in a chunk.
    """
    bit = (value >> _SHIFT_FILTER) & _FILTER_MASK
    if not (FILTER[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7))) & np.uint8(1):
        return 0
    slot = (value >> _SHIFT) & _SLOT_MASK
    while KEYS[slot] != 0:
        if KEYS[slot] == value:
            return np.int64(VALUES[slot])  # type: ignore[return-value]
        slot = (slot + _ONE) & _SLOT_MASK
    return 0
