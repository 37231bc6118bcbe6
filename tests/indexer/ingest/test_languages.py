import csv
from pathlib import Path

import pytest

from indexer.ingest.languages import detect_language, language_code, named_language

SHARED = Path(__file__).parents[4] / "shared" / "data"

SPOKEN = {
    "en": ["I told him we should have taken the other road.", "Today we are going to bake bread without a machine."],
    "de": ["Ich habe ihm gesagt, dass wir die andere Straße nehmen sollten.", "Heute lernen wir, wie man Brot backt."],
    "fr": ["Je lui ai dit que nous aurions dû prendre l'autre route.", "Aujourd'hui, nous allons faire du pain."],
    "es": ["Le dije que deberíamos haber tomado el otro camino.", "Hoy vamos a aprender a hacer pan en casa."],
    "pt": ["Eu disse a ele que deveríamos ter ido pela outra estrada.", "Hoje vamos aprender a fazer pão em casa."],
    "it": ["Gli ho detto che avremmo dovuto prendere l'altra strada.", "Oggi impariamo a fare il pane in casa."],
    "nl": ["Ik zei hem dat we de andere weg hadden moeten nemen.", "Vandaag leren we hoe je thuis brood bakt."],
    "pl": ["Powiedziałem mu, że powinniśmy byli pojechać inną drogą.", "Dzisiaj nauczymy się piec chleb w domu."],
    "ru": ["Я сказал ему, что надо было ехать по другой дороге.", "Сегодня мы научимся печь хлеб дома."],
    "uk": ["Я сказав йому, що треба було їхати іншою дорогою.", "Сьогодні ми навчимося пекти хліб удома."],
    "tr": ["Ona diğer yoldan gitmemiz gerektiğini söyledim.", "Bugün evde ekmek yapmayı öğreneceğiz."],
    "ar": ["قلت له إنه كان علينا أن نسلك الطريق الآخر.", "اليوم سنتعلم كيف نخبز الخبز في المنزل."],
    "zh": ["我告诉他我们应该走另一条路。", "今天我们来学习怎么在家做面包。"],
    "ja": ["別の道を行くべきだったと彼に言いました。", "今日は家でパンを焼く方法を学びます。"],
    "ko": ["다른 길로 갔어야 한다고 그에게 말했어요.", "오늘은 집에서 빵을 굽는 방법을 배워 보겠습니다."],
    "hi": ["मैंने उससे कहा कि हमें दूसरा रास्ता लेना चाहिए था।", "आज हम घर पर रोटी बनाना सीखेंगे।"],
}


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("eng", "en"),
        ("pt-BR", "pt"),
        ("zh_Hans", "zh"),
        ("es-419", "es"),
        ("ger", "de"),
        ("deu", "de"),
        ("nob", "no"),
        ("iw", "he"),
        ("cmn", "zh"),
        ("yue", "yue"),
        (" en ", "en"),
        ("und", None),
        ("mul", None),
        ("xx", None),
        ("english", None),
        ("", None),
        (None, None),
        ("e\n", None),
    ],
)
def test_language_code_is_the_primary_subtag(tag, code):
    assert language_code(tag) == code


def test_words_of_three_letters_are_no_languages_of_files():
    assert [named_language(tag) for tag in ("one", "cut", "raw", "eng", "fil", "de")] == [
        None,
        None,
        None,
        "en",
        "fil",
        "de",
    ]


@pytest.mark.parametrize("language", SPOKEN)
def test_language_of_two_sentences_is_told(language):
    assert detect_language(SPOKEN[language]) == language
    assert detect_language(SPOKEN[language] * 500) == language


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["Yes."],
        ["Okay", "[Music]", "♪ ♪"],
        ["[Applause]", "(laughter and people talking all at once)"],
        ["12:30", "www.example.com", "#wow"],
        ["Ha ha ha ha ha ha ha ha ha ha!"],
        ["La la la la la la la la"],
        ["Maria! Maria!", "Whoa! Aah! Ugh!"],
        ["你好"],
    ],
)
def test_what_is_too_short_or_no_speech_has_no_language(texts):
    assert detect_language(texts) is None


@pytest.mark.parametrize(
    "languages", [("en", "de"), ("fr", "es"), ("pt", "it"), ("ru", "uk"), ("zh", "ja"), ("ar", "tr")]
)
def test_mixed_transcript_has_no_language(languages):
    first, second = (SPOKEN[language] * 4 for language in languages)
    assert detect_language(first + second) is None
    assert detect_language([text for pair in zip(first, second, strict=True) for text in pair]) is None


def test_a_few_foreign_words_do_not_matter():
    assert detect_language([*SPOKEN["de"] * 20, *SPOKEN["en"]]) == "de"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["[" * 10**6, "(a" * 10**6, "{" + "x" * 10**6, "x y " * 10**6, "@" * 10**6])
def test_hostile_text_takes_no_longer_than_other_text(text):
    assert detect_language([text]) is None


@pytest.mark.shared
def test_english_captions_are_never_taken_for_another_language():
    if not SHARED.is_dir():
        pytest.skip("the shared test collections are not mounted")
    texts = []
    for file, column in [("speech/transcripts.tsv", "text"), ("videos/manifest.tsv", "caption")]:
        with open(SHARED / file, encoding="utf-8", newline="") as rows:
            texts += [row[column] for row in csv.DictReader(rows, delimiter="\t") if row[column]]
    found = [detect_language([text]) for text in texts]
    assert set(found) == {"en", None}
    assert found.count("en") > 0.95 * len(texts)
