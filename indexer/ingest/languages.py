"""Languages: their codes as subtitle names and containers write them, and what language a text is in.

A language is a BCP 47 primary subtag in lower case: the two letters of ISO 639-1 where there are such (`eng` is `en`),
without region or script (`pt-BR` is `pt`). What is not known is None.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# ISO 639: two letters, and the three that mean the same; those of ISO 639-2/B come last.
_CODES = """
aa:aar ab:abk ae:ave af:afr ak:aka am:amh an:arg ar:ara as:asm av:ava ay:aym az:aze ba:bak be:bel bg:bul bi:bis bm:bam
bn:ben bo:bod:tib br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces:cze cu:chu cv:chv cy:cym:wel da:dan
de:deu:ger dv:div dz:dzo ee:ewe el:ell:gre en:eng eo:epo es:spa et:est eu:eus:baq fa:fas:per ff:ful fi:fin fj:fij
fo:fao fr:fra:fre fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb hi:hin ho:hmo hr:hrv ht:hat hu:hun
hy:hye:arm hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl:ice it:ita iu:iku ja:jpn jv:jav ka:kat:geo
kg:kon ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau ks:kas ku:kur kv:kom kw:cor ky:kir la:lat lb:ltz lg:lug
li:lim ln:lin lo:lao lt:lit lu:lub lv:lav mg:mlg mh:mah mi:mri:mao mk:mkd:mac ml:mal mn:mon mr:mar ms:msa:may mt:mlt
my:mya:bur na:nau nd:nde ne:nep ng:ndo nl:nld:dut nn:nno no:nor nr:nbl nv:nav ny:nya oc:oci oj:oji om:orm or:ori os:oss
pa:pan pi:pli pl:pol ps:pus pt:por qu:que rm:roh rn:run ro:ron:rum ru:rus rw:kin sa:san sc:srd sd:snd se:sme sg:sag
sh:hbs si:sin sk:slk:slo sl:slv sm:smo sn:sna so:som sq:sqi:alb sr:srp ss:ssw st:sot su:sun sv:swe sw:swa ta:tam te:tel
tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn to:ton tr:tur ts:tso tt:tat tw:twi ty:tah ug:uig uk:ukr ur:urd uz:uzb ve:ven
vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid yo:yor za:zha zh:zho:chi zu:zul
"""
# Older codes, and members of a language that goes by one name: what one person writes `ar`, another writes `arz`.
_SAME = """
ar:acm:afb:apc:arb:ary:arz fa:pes:prs ff:fuv gn:gug he:iw id:in ms:zsm no:nb:nob sw:swh uz:uzn:uzs yi:ji zh:cmn
"""
# Three letters for which there are no two; any others after a dot are rather a word of the video's name.
_THREE = """
ast bho ceb chr fil gsw haw hmn hsb kab kok mai mni nds nso pap scn szl vec wuu yue
"""
_NO_LANGUAGE = ("mis", "mul", "und", "zxx")
_BY_CODE = {code: codes.split(":")[0] for codes in (_CODES + _SAME).split() for code in codes.split(":")}
_TAG = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*")

# What subtitles say that is of no language: [sounds], (sounds), {styles}, addresses, hashtags, numbers.
_NOT_SAID = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}|https?://\S+|www\.\S+|[@#]\w+|\d+")
_WORD = re.compile(r"[^\W\d_]+")
# Scripts that need a third of the letters, or less, to say the same.
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_DENSE_WEIGHT = 3
_MIN_LETTERS, _MIN_WORDS = 20, 4
# A text is looked at in pieces of at least so many letters, and in so many of them, spread evenly.
_PIECE_LETTERS, _MAX_PIECES, _MAX_PIECE_CHARS = 40, 200, 2_000
# A piece counts if its language is so sure; so large a share of letters must count, and of these be of one language.
_SURE, _MIN_COUNTED, _SHARE = 0.7, 0.75, 0.9


def language_code(tag: str | None) -> str | None:
    """`en` for `EN`, `eng`, `en-US` or `en_us`; None for `und` and what is no tag.

    Three letters that ISO 639 has no two for, or that it does not have, are kept as they are.
    """
    found = _TAG.fullmatch((tag or "").strip().lower())
    if found is None or found[1] in _NO_LANGUAGE:
        return None
    code = found[1]
    return _BY_CODE.get(code, code if len(code) == 3 else None)


def named_language(tag: str | None) -> str | None:
    """The language that part of a file's name stands for. Stricter than `language_code`: `film.one.srt` names none."""
    code = language_code(tag)
    return code if code in _BY_CODE or code in _THREE.split() else None


def detect_language(texts: Sequence[str]) -> str | None:
    """The language of a transcript, or None where it is too short, mixed, or like nothing that is known.

    Args:
        texts: its lines, in order.
    """
    pieces = _pieces(texts)
    step = max(1.0, len(pieces) / _MAX_PIECES)
    weights: dict[str | None, int] = {}
    num_letters = 0
    for number in range(min(len(pieces), _MAX_PIECES)):
        text, num_in_piece = pieces[int(number * step)]
        num_letters += num_in_piece
        language, sureness = _identifier().classify(text[:_MAX_PIECE_CHARS])
        if sureness >= _SURE:
            code = language_code(language)
            weights[code] = weights.get(code, 0) + num_in_piece
    num_counted = sum(weights.values())
    if num_counted < _MIN_COUNTED * num_letters or not weights:
        return None
    best = max(weights, key=lambda code: weights[code])
    return best if weights[best] >= _SHARE * num_counted else None


def _pieces(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Parts of the text long enough to be told apart, with their number of letters; none if the whole is too short."""
    pieces: list[tuple[str, int]] = []
    words: list[str] = []
    num_letters = 0
    for text in texts:
        found = _WORD.findall(_NOT_SAID.sub(" ", text))
        words += found
        num_letters += sum(len(word) + (_DENSE_WEIGHT - 1) * len(_DENSE.findall(word)) for word in found)
        if num_letters >= _PIECE_LETTERS:
            pieces.append((" ".join(words), num_letters))
            words, num_letters = [], 0
    if words and (pieces or _is_enough(words, num_letters)):
        last = (" ".join(words), num_letters)
        pieces = [*pieces, last] if _is_enough(words, num_letters) else pieces
    return pieces


def _is_enough(words: Sequence[str], num_letters: int) -> bool:
    is_dense = any(_DENSE.search(word) for word in words)
    return num_letters >= _MIN_LETTERS and (is_dense or len({word.lower() for word in words}) >= _MIN_WORDS)


@functools.cache
def _identifier() -> LanguageIdentifier:
    """Loaded with the first text that needs it: half a second and 120 MB."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
