"""Synthetic junk in the style of web crawls, from a seed, for measuring the filters.

Five kinds. `repeated`: a few lines repeated, as in menus and forum signatures. `markup`: pages with
tags, entities, styles and scripts. `random`: strings and syllables that are not words. `keywords`:
lists of search terms without sentences. `mojibake`: Korean text, all or half of it decoded with the
wrong encoding. Real sentences in them come from the embedded stories.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from holo_cli.data.sources.stories.grammar import tell_story

KINDS = ("repeated", "markup", "random", "keywords", "mojibake")


def _words(text: str) -> list[str]:
    return text.split()


_NOUNS = {
    "en": _words(
        "shoes price sale cheap discount hotel flight insurance loan casino mortgage phone "
        "battery charger laptop camera review download free online store watch jewelry dress "
        "jacket travel ticket deal coupon vitamin diet recipe garden furniture sofa lamp kitchen "
        "knife bicycle helmet guitar piano lesson tutor exam school college degree options salary "
        "resume lawyer dentist clinic doctor pharmacy toy puzzle game poker bonus software "
        "license key server"
    ),
    "ko": _words(
        "신발 가격 할인 특가 호텔 항공권 보험 대출 카지노 휴대폰 배터리 충전기 노트북 카메라 후기 "
        "무료 온라인 쇼핑몰 시계 원피스 자켓 여행 쿠폰 비타민 다이어트 레시피 정원 소파 조명 주방 "
        "자전거 헬멧 기타 피아노 학원 과외 시험 학교 대학 취업 연봉 변호사 치과 병원 약국 장난감 "
        "퍼즐 게임 포커 보너스 소프트웨어 서버 부동산 아파트 분양 인테리어 청소 이사 렌터카 맛집"
    ),
}
_LINES = {
    "en": [
        "Click here to subscribe to our newsletter",
        "Home | About | Contact | Login",
        "Read more",
        "Share this post on your wall today.",
        "Posted by admin in Uncategorized.",
        "All rights reserved.",
    ],
    "ko": [
        "로그인 후 댓글을 남길 수 있습니다.",
        "홈 | 소개 | 문의 | 회원가입",
        "더 보기",
        "이 글을 친구에게 공유해 보세요.",
        "관리자가 작성한 글입니다.",
        "무단 전재 및 재배포를 금지합니다.",
    ],
}


def make(kind: str, number: int, seed: int = 0) -> str:
    """Document `number` of a kind; the same for the same arguments, 300 to 4,000 characters."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    language = "ko" if number % 2 else "en"
    return _MAKERS[kind](rng, language)


def documents(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(kind, text), `count` of each kind."""
    for number in range(count):
        for kind in KINDS:
            yield kind, make(kind, number, seed)


def _repeated(rng: random.Random, language: str) -> str:
    lines = rng.sample(_LINES[language], rng.randint(1, 5))
    block = [rng.choice(lines) for _ in range(rng.randint(25, 90))]
    if rng.random() < 0.3:  # a few real sentences do not make it a good text
        block[len(block) // 2 : len(block) // 2] = _sentences(rng, language)[:2]
    return rng.choice(["\n", "\n\n", " "]).join(block)


def _markup(rng: random.Random, language: str) -> str:
    parts = []
    for _ in range(rng.randint(10, 40)):
        words = " ".join(rng.choice(_NOUNS[language]) for _ in range(rng.randint(1, 5)))
        if rng.random() < 0.25:
            words = rng.choice(_sentences(rng, language))
        parts.append(
            rng.choice(
                [
                    f'<div class="item-{rng.randint(1, 99)}"><span>{words}</span></div>',
                    f'<a href="/p/{rng.randint(1, 9999)}.html" target="_blank">{words}</a>&nbsp;|',
                    f'<td width="{rng.randint(1, 99)}%" align="left">{words}</td><td>&nbsp;</td>',
                    f"[url=http://example.com/{rng.randint(1, 999)}][b]{words}[/b][/url]",
                    f"{{{{Infobox|name={words}|width={rng.randint(9, 999)}px}}}}",
                    f".menu-{rng.randint(1, 99)} {{ color: #{rng.randint(0, 0xFFFFFF):06x}; "
                    f"margin: {rng.randint(0, 40)}px 0; }} {words}",
                    f"var _p{rng.randint(1, 99)} = document.getElementById('{words}'); "
                    f"function f{rng.randint(1, 99)}(e) {{ return e.target; }}",
                ]
            )
        )
    return rng.choice(["\n", " "]).join(parts)


def _random(rng: random.Random, language: str) -> str:
    style = rng.randrange(3)
    words = []
    for _ in range(rng.randint(60, 300)):
        size = rng.randint(2, 12)
        if style == 0:
            words.append("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(size)))
        elif style == 1:
            words.append("".join(chr(rng.randint(0x21, 0x7E)) for _ in range(size)))
        elif language == "ko":
            words.append("".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(size // 2 + 1)))
        else:
            words.append("".join(rng.choice("0123456789abcdef") for _ in range(16)))
    return _wrapped(rng, words)


def _keywords(rng: random.Random, language: str) -> str:
    words = [
        " ".join(rng.sample(_NOUNS[language], rng.randint(1, 3)))
        for _ in range(rng.randint(50, 250))
    ]
    return rng.choice([", ", " | ", "\n", " ", " #"]).join(words)


def _mojibake(rng: random.Random, language: str) -> str:
    del language  # always Korean
    text = " ".join(" ".join(_sentences(rng, "ko")) for _ in range(rng.randint(2, 6)))
    half = len(text) // 2
    return rng.choice(
        [
            text.encode("cp949").decode("latin-1"),
            text.encode("utf-8").decode("cp949", errors="ignore"),
            text.encode("utf-8").decode("cp1252", errors="ignore"),
            text.encode("cp949").decode("utf-8", errors="replace"),
            # the second half in another encoding, as in a page of two sources
            text[:half] + text[half:].encode("cp949").decode("latin-1"),
            text[:half] + text[half:].encode("cp949").decode("utf-8", errors="replace"),
        ]
    )


def _sentences(rng: random.Random, language: str) -> list[str]:
    """The sentences of a story."""
    story = tell_story(rng.randrange(1_000_000), language)
    return [sentence for paragraph in story.paragraphs for sentence in paragraph]


def _wrapped(rng: random.Random, words: list[str]) -> str:
    lines, at = [], 0
    while at < len(words):
        step = rng.randint(5, 20)
        lines.append(" ".join(words[at : at + step]))
        at += step
    return "\n".join(lines)


_MAKERS = {
    "repeated": _repeated,
    "markup": _markup,
    "random": _random,
    "keywords": _keywords,
    "mojibake": _mojibake,
}
