"""Denied names: what counts as the same words, that the fast search is right, and the files."""

from __future__ import annotations

import re
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline.denied import denied_in, denied_words, read_names
from pipeline.folding import folded, readings
from pipeline.lookalikes import LATIN
from pipeline.settings import ROOT

LISTS = sorted((ROOT / "policies" / "names").glob("*.txt"))
SHIPPED = tuple(name for file in LISTS for name, _ in read_names(file)[0])


@pytest.mark.parametrize(
    ("name", "prompt", "caught"),
    [
        # Whole words, any case, any punctuation around them.
        ("Picasso", "a vase, PICASSO style", True),
        ("Picasso", "Picasso's blue period", True),
        ("Picasso", "(picasso:1.3), studio", True),
        ("Picasso", "a picasso_vase", True),
        ("Picasso", "#picasso @picasso", True),
        ("Picasso", "a Picasso2 vase, picasso²", True),
        ("nude", "nudes", False),
        ("nude", "a denuded hill", False),
        ("Gap", "a gapless frame", False),
        ("", "anything", False),
        # Accents, strokes, ligatures, width, other forms.
        ("Dalí", "in the manner of Dali", True),
        ("Dali", "in the manner of DALI\u0301", True),
        ("Ångström", "angstrom", True),
        ("Straße", "STRASSE at night", True),
        ("Søren Łoś", "soren los", True),
        ("Æon Flux", "aeon flux", True),
        ("İstanbul", "istanbul ISTANBUL", True),
        ("Müller", "Mueller", False),
        ("nude", "ｎｕｄｅ 𝓷𝓾𝓭𝓮", True),
        ("Ｎｉｋｅ", "nike", True),
        ("Nike", "a Nike™ shoe", True),
        ("Coca-Cola Zero", "Coca-Cola® Zero", True),
        # Invisible characters.
        ("nude", "nu\u00adde", True),
        ("nude", "n\u200bu\u200dd\ufe0fe", True),
        ("nude", "nu\x00de", True),
        # Look-alikes.
        ("Picasso", "a Piсаsso", True),
        ("Pepsi", "РЕРЅІ can", True),
        ("Nike", "ΝΙΚΕ, Greek capitals", True),
        ("Mickey", "a Mickеу toy", True),
        ("Mickey", "a мickey toy", True),
        ("Picasso", "ᴘɪᴄᴀꜱꜱᴏ", True),
        ("Пикассо", "стиль ПИКАССО", True),
        ("Пикассо", "стиль Пикaссo with Latin a and o", True),
        ("Σωκράτης", "ΣΩΚΡΑΤΗΣ, σωκρατης", True),
        ("Толстой", "толстои\u0306", True),
        # A Cyrillic word is no Latin one for having some letters like it.
        ("mama", "мама и папа", False),
        ("Hoc", "нос", False),
        # Digits and signs for letters.
        ("Picasso", "p1casso", True),
        ("Lego", "l3g0 bricks", True),
        ("Playmobil", "p1aym0bil", True),
        ("Disney", "di$ney", True),
        ("Ke$ha", "KE$HA", True),
        ("AXA", "a 4x4 truck", False),
        ("Blink-182", "blink 182", True),
        ("18+", "18 candles", False),
        ("18+", "only 18+, please", True),
        # Parts of a name apart, together, spelled out.
        ("Spider-Man", "spider man", True),
        ("Spider-Man", "Spider\u2011Man", True),
        ("Spider Man", "spiderman", True),
        ("Mickey Mouse", "mickey   \n Mouse", True),
        ("mickey mouse", "MickeyMouse", True),
        ("mickey mouse", "mickey mousepad", False),
        ("Goodyear", "a good year", False),
        ("Blackpink", "a black pink dress", False),
        ("Goodyear", "G o o d y e a r", True),
        ("Lego", "l.e.g.o", True),
        ("E.T.", "chaise et table", False),
        ("E.T.", "E. T. the film", True),
        ("J.K. Rowling", "JK Rowling", True),
        ("Georgia O'Keeffe", "georgia o’keeffe, georgia okeeffe", True),
        ("Hawaiʻi Inc", "hawai'i inc", True),
        ("Levi's", "levis jeans", True),
        ("Dr. Seuss", "dr seuss", True),
        ("H&M", "h and m", True),
        ("H&M", "a hand m", False),
        ("Dolce & Gabbana", "Dolce and Gabbana", True),
        ("Monsters, Inc.", "monsters inc", True),
        ("Monsters, Inc.", "Monsters, Inc. toys", True),
        ("Yahoo!", "yahoo", True),
        ("Red Bull", "colours: red, bull horns", False),
        ("Red Bull", "painted scarlet red; bull", False),
        ("Bull Horn", "a running bull. Horn on wall", False),
        # Scripts without spaces between words.
        ("裸体", "一个裸体模特", True),
        ("草間彌生", "草間 彌生風の壺", True),
        ("草間彌生", "草間、彌生", False),
        ("ピカチュウ", "ﾋﾟｶﾁｭｳのぬいぐるみ", True),
        ("ガンダム", "カ\u3099ンタ\u3099ム", True),
        ("パブロ・ピカソ", "パブロピカソ風", True),
        ("미키마우스", "미키마우스는", True),
        ("나이키", "나이 키우기", False),
        ("Picasso", "用Picasso风格画的花瓶", True),
        ("ポケモンGO", "ポケモンgoの", True),
        ("ポケモンGO", "ポケモンGOOD", False),
        ("มิกกี้เมาส์", "ตุ๊กตามิกกี้เมาส์", True),
        # Vowel signs are no ends of words.
        ("मोद", "नरेन्द्र मोदी", False),
        ("मोदी", "नरेन्द्र मोदी", True),
        ("محمد", "مُحَمَّد", True),
        # What holds no letter is looked for as it is.
        ("©", "© a mug", True),
        ("©", "a mug", False),
    ],
)  # fmt: skip
def test_what_counts_as_the_same_words(name: str, prompt: str, caught: bool) -> None:
    assert denied_words((name,), prompt) == ([name] if caught else [])
    assert denied_words((name,), unicodedata.normalize("NFD", prompt)) == ([name] if caught else [])


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_name_is_found_in_any_case_and_form(name: str) -> None:
    for form in (name, name.lower(), name.upper(), name.title()):
        for norm in ("NFC", "NFD", "NFKC", "NFKD"):
            prompt = f"a mug by {unicodedata.normalize(norm, form)}, on white"
            assert name in denied_words(SHIPPED, prompt)


@given(st.text(max_size=40))
def test_folding_is_idempotent(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    assert readings(text)[0] == folded(text)


difficult = st.text(
    alphabet="aeopcABHnт кКнСсıøÅﬁ™.,-&'_²①ßŉǰΐᾳİſ\u0301\u0345\u200b\u3099カ草ทé नी한ㅎ",
    max_size=20,
)


@given(difficult)
@example("AAŉ.")
@example("カ_\u3099")
def test_folding_of_difficult_text_is_idempotent(text: str) -> None:
    assert folded(folded(text)) == folded(text)


names = st.sampled_from([name for name in SHIPPED if name.isascii()])
around = st.text(alphabet="abc XYZ,.-é草к1", max_size=12)


@st.composite
def disguised(draw: st.DrawFn) -> tuple[str, str]:
    """A shipped name, and the same in some other case, accents, look-alikes and hidden marks."""
    name = draw(names)
    letters = []
    for letter in draw(st.sampled_from([name, name.lower(), name.upper()])):
        kind = draw(st.sampled_from(["plain", "plain", "like", "wide", "accent", "hidden"]))
        if kind == "like" and letter in LATIN:
            letter = draw(st.sampled_from(LATIN[letter]))
        elif kind == "wide" and letter.isalnum():
            letter = chr(ord(letter) + 0xFEE0)
        elif kind == "accent" and letter.isalpha():
            accented = letter + draw(st.sampled_from("\u0301\u0308\u030a\u0327"))
            letter = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), accented)
        elif kind == "hidden":
            letter += draw(st.sampled_from(["\u200b", "\u00ad", "\u2060"]))
        letters.append(letter)
    return name, "".join(letters)


@given(disguised(), around, around)
def test_a_denied_name_is_found_in_any_disguise(
    pair: tuple[str, str], before: str, after: str
) -> None:
    name, written = pair
    assert name in denied_words(SHIPPED, f"{before} {written} {after}")


@given(names, st.text(alphabet="abcxyzé", min_size=1, max_size=3), st.booleans())
def test_a_name_inside_a_longer_word_is_not_found(name: str, more: str, front: bool) -> None:
    # A digit at the name's edge parts it from letters, as digits beside a name do.
    assume(name[0 if front else -1].isalpha())
    word = f"{more}{name}" if front else f"{name}{more}"
    assert denied_words((name,), f"a {word} b") == []


@given(st.lists(st.sampled_from(SHIPPED), min_size=1, max_size=6, unique=True), st.data())
def test_the_order_of_the_list_never_matters(some: list[str], data: Any) -> None:
    prompt = " and ".join(data.draw(st.permutations(some))[:2])
    other = data.draw(st.permutations(some))
    assert set(denied_words(tuple(some), prompt)) == set(denied_words(tuple(other), prompt))


def by_regex(deny: list[str], prompt: str) -> list[str]:
    """The slow way: one regular expression a name, over the folded prompt."""
    text = folded(prompt)
    found = []
    for name in deny:
        parts = [re.escape(part) for part in folded(name).split()]
        whole = "".join(parts)
        gap = " ?" if len(whole) >= 3 else " "
        forms = [gap.join(parts)] + ([" ".join(whole)] if len(whole) >= 4 else [])
        if any(re.search(rf"(?<![a-z]){form}(?![a-z])", text) for form in forms):
            found.append(name)
    return found


words = st.text(alphabet="ab", min_size=1, max_size=4)


@given(
    st.lists(st.lists(words, min_size=1, max_size=3).map(" ".join), max_size=8, unique=True),
    st.lists(words | st.sampled_from(["7", "-", ","]), max_size=12),
    st.sampled_from([" ", "-", "", "_"]),
)
def test_the_fast_search_agrees_with_a_regular_expression_for_each_name(
    deny: list[str], prompt: list[str], between: str
) -> None:
    text = between.join(prompt)
    assert denied_words(tuple(deny), text) == by_regex(deny, text)


PLAIN = st.text(alphabet="abAB &.,-'_!$17", max_size=16) | st.lists(
    st.sampled_from(["a", "ab", "abba", "and", "&", "b!", "7", ",", "b7"]), max_size=8
).map(" ".join)


@settings(max_examples=300)
@given(st.lists(PLAIN, min_size=1, max_size=6, unique=True), PLAIN, st.data())
def test_plain_prompts_are_searched_as_all_others(deny: list[str], text: str, data: Any) -> None:
    name = data.draw(st.sampled_from(deny))
    written = data.draw(
        st.sampled_from(
            [name, name.replace(" ", ""), name.replace("&", "and"), " ".join(name), text]
        )
    )
    prompt = f"{text} {written}"
    # A character that nobody sees makes a prompt one that is not plain, and changes no word.
    assert denied_words(tuple(deny), prompt) == denied_words(tuple(deny), f"{prompt}\u200b")


@given(
    st.lists(st.text(alphabet="草間彌生", min_size=1, max_size=3), max_size=6, unique=True),
    st.text(alphabet="草間彌生 ab,", max_size=20),
)
def test_any_occurrence_counts_in_scripts_without_spaces(deny: list[str], prompt: str) -> None:
    text = re.sub("(?<=[草間彌生]) +(?=[草間彌生])", "", prompt)
    assert denied_words(tuple(deny), prompt) == [name for name in deny if name in text]


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_text_may_be_searched_for_any_word(prompt: str, word: str) -> None:
    denied_words((word,), prompt)


def test_many_prompts_at_once_give_the_same_answers() -> None:
    prompts = ["a mug", "a Picasso mug", "a mug", "ピカチュウ and Batman", ""]
    assert denied_in(SHIPPED, prompts) == {
        prompt: denied_words(SHIPPED, prompt) for prompt in prompts if denied_words(SHIPPED, prompt)
    }
    assert list(denied_in(SHIPPED, prompts)) == ["a Picasso mug", "ピカチュウ and Batman"]


@given(st.lists(PLAIN, min_size=1, max_size=4, unique=True), st.lists(PLAIN, max_size=8))
def test_prompts_do_not_mix(deny: list[str], prompts: list[str]) -> None:
    each = {prompt: denied_words(tuple(deny), prompt) for prompt in prompts}
    assert denied_in(tuple(deny), prompts) == {p: found for p, found in each.items() if found}


def test_equal_lists_give_equal_answers_whichever_came_before() -> None:
    for number in range(80):
        deny = (f"name{number}", "Picasso")
        assert denied_words(deny, f"a picasso and name{number}") == list(deny)


def test_ten_thousand_prompts_against_twenty_thousand_names_take_seconds() -> None:
    deny = tuple(f"{chr(97 + n % 26)}orn{n:05} wick{n % 977}" for n in range(19_000))
    deny += tuple(chr(0x4E00 + n) + chr(0x5E00 + n) for n in range(1_000))
    prompts = [
        f"a red ceramic mug number {n} on a white background, soft light, 85mm lens, detailed"
        for n in range(10_000)
    ]
    prompts[7] += f" by {deny[1234].upper()}"
    start = time.process_time()
    assert denied_in(deny, prompts) == {prompts[7]: [deny[1234]]}
    assert time.process_time() - start < 15


EVERYDAY = """
a red mug on a white background
apple pie on a table
a green apple next to a glass of milk
a shell on sand
orange lamp, studio light
an orange logo on a white mug
a target board with three darts
a jaguar print dress
a puma resting on a rock, wildlife print
a visa for travel, passport on a desk
a gap between two wooden boards
dove on a branch, pastel print
a prince and a princess in a storybook castle
a pink panther print scarf
canada goose on a lake
the north face of a snowy mountain
head and shoulders portrait of a woman
a one-piece swimsuit in teal
mannequin with no face wearing a hat
a doctor who smiles, in a white coat
king charles spaniel on a sofa
madonna and child, baroque painting frame
a play station for toddlers made of wood
a good year for roses, wall calendar
a black pink dress on a hanger
face book page mockup, blank
colour swatch cards, matte
citroen en limoen op een houten plank
snow white bed linen
a lion king size duvet cover
mountain dew on grass at dawn
a happy meal with friends at home
hens that lay eggs, farm photo
electrical transformers behind a fence
a big bird on a wire
iron pan and a man cooking
a monster truck toy, full of energy
strawberry shortcake on a plate
among us there is one red balloon
a mustang horse galloping
a beetle on a leaf, macro
ford across a shallow river
a tesla coil in a science museum
subway tiles in a kitchen
a mini fridge, cooper coloured
camel hair coat
omega-3 capsules bottle
diesel generator on site
vans parked in a row
converse with a friend over coffee
a fossil ammonite on slate
old spice jars on a rack
the best buy guide booklet
post it on the wall, poster mockup
ups and downs chart, flat illustration
universal remote control on a table
chaise et table en bois, style moderne
Kinder spielen im Garten, Holzspielzeug
красная кружка на белом фоне
мама и папа на кухне, тарелка супа
白色背景上的红色杯子
白い背景に赤いマグカップ
흰 배경 위의 빨간 머그컵
a 4x4 truck, mp3 player, 3d render, 8k, f1.8, 85mm
a venom green handbag
thor's day calendar, wednesday circled
the joker card from a deck
sprite sheet of pixel art coins
a wonder of nature, woman hiking
windows with white frames
a meta description on a screen
monopoly of blue in a room
hot wheels of cheese on a grill
"""


@pytest.mark.parametrize("prompt", [line for line in EVERYDAY.split("\n") if line])
def test_everyday_prompts_are_not_denied_by_the_shipped_lists(prompt: str) -> None:
    assert denied_words(SHIPPED, prompt) == []


@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.stem)
def test_shipped_lists_read_without_faults(file: Path) -> None:
    found, faults = read_names(file)
    assert faults == []
    assert len(found) >= 100
    text = file.read_text(encoding="utf-8")
    assert text.startswith("#")
    assert "not complete" in text
    assert "deny_lists" in text
    assert any(not name.isascii() and not unicodedata.name(name[0]).startswith("LATIN")
               for name, _ in found)  # fmt: skip


def test_there_are_lists_of_artists_brands_characters_and_persons() -> None:
    assert [file.stem for file in LISTS] == ["artists", "brands", "characters", "persons"]


def test_a_file_gives_names_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_bytes(
        "\ufeff# our rivals\r\n\r\n  Acme Toys \r\nC# Sharp  # a band\r\n#Nike\r\n草間彌生".encode()
    )
    assert read_names(file) == ([("Acme Toys", 3), ("C# Sharp", 4), ("草間彌生", 6)], [])


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"Acme\n\xff\xfebad\n", 2, "UTF-8"),
        (b"Acme\n---\n", 2, "no letter or digit"),
        ("Acme\n\u200b\u2122\n".encode(), 2, "no letter or digit"),
        (b"Acme\n\nX\n", 3, "single letter"),
        ("Acme\n草\n".encode(), 2, "single letter"),
        ("Dalí\nAcme\nDALI\n".encode(), 3, "line 1"),
        (b"Spider-Man\nspider man\n", 2, "line 1"),
        (b"Yahoo!\nyahoo\n", 2, "line 1"),
        (b"a" * (1 << 20) + b"a", None, "1,048,577 bytes"),
        (None, None, "cannot be read"),
    ],
)
def test_each_fault_of_a_file_is_told_with_its_line(
    tmp_path: Path, content: bytes | None, line: int | None, words: str
) -> None:
    file = tmp_path / "own.txt"
    if content is not None:
        file.write_bytes(content)
    found, (fault,) = read_names(file)
    assert words in fault.what
    assert fault.where == (f"{file}:{line}" if line else str(file))
    assert fault.remedy
    assert all(name in ("Acme", "Dalí", "Spider-Man", "Yahoo!") for name, _ in found)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("Acme\nx\n--\nACME\nOther\n")
    found, faults = read_names(file)
    assert found == [("Acme", 1), ("Other", 5)]
    assert [fault.where for fault in faults] == [f"{file}:{line}" for line in (2, 3, 4)]
