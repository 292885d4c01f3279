"""Korean: particles by the last sound of a word, and honorific agreement.

은, 이, 을, 과, 으로 and 아 follow a consonant, 는, 가, 를, 와, 로 and 야 a vowel; (으)로
treats ㄹ as a vowel. The correct form is computed (`data/sources/stories/josa.py`).
"""

from __future__ import annotations

from holo_cli.data.sources.stories.josa import PARTICLES, final, particle
from holo_cli.inference.minimal_pairs.base import Phenomenon, WordForms, choices


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_CLOSED = _words("""곰 양 집 빵 꽃 문 연 길 등불 방울 떡 달걀 돌 별 창문 마을 강 산 공 북""")
_OPEN = _words("""여우 오리 나무 배 종이 바구니 열쇠 모자 염소 너구리 사과 다리 자두 사다리 단추
목도리 케이크 고구마 생쥐 다람쥐""")
_CLOSED_PLACES = _words("집 숲 강 산 언덕 들판 시장 섬 밭 골목 마당 부엌")
_OPEN_PLACES = _words("바다 학교 나무 장터 호수 다리 냇가 가게 마을 길 오솔길 굴")
_CLOSED_NAMES = _words("민준 서연 하은 도윤 예준 서윤 하준 다은 채원 새봄 한결 가람")
_OPEN_NAMES = _words("지호 수아 지우 시우 은우 유나 준서 건우 현우 윤호 아라 미나")
_ELDERS = _words("할머니 할아버지 어머니 아버지 선생님 아주머니 아저씨 이모 고모 삼촌")
_YOUNG = _words("강아지 아기 친구 동생 아이 토끼 고양이 염소 오리 너구리")
_WHEN = choices("|어느 날|그날|그때|며칠 뒤|다음 날 아침|그런데")
_ADJECTIVES = _words("작은 큰 하얀 파란 낡은 이상한 좋은 예쁜")
_THERE = choices("""보이지 않았다|그곳에 있었다|사라졌다|눈에 띄었다|마음에 들었다|아주 멀리 있었다|
생각났다|어디에도 없었다""")
_VERBS = (
    ("오셨다", "왔다"), ("가셨다", "갔다"), ("웃으셨다", "웃었다"), ("앉으셨다", "앉았다"),
    ("말씀하셨다", "말했다"), ("노래하셨다", "노래했다"), ("일하셨다", "일했다"),
    ("기다리셨다", "기다렸다"), ("생각하셨다", "생각했다"), ("일어나셨다", "일어났다"),
)  # fmt: skip


def _sides(
    name: str, closed: tuple[str, ...], open_: tuple[str, ...]
) -> tuple[tuple[WordForms, WordForms], ...]:
    """Words that need one form of a particle, paired with words that need the other."""
    sides = []
    for first, second in zip(closed, open_, strict=True):
        left: WordForms = {"noun": first, "gap": particle(first, name)}
        right: WordForms = {"noun": second, "gap": particle(second, name)}
        assert (left["gap"], right["gap"]) == PARTICLES[name], (first, second)
        sides.append((left, right))
    return tuple(sides)


def _subject(word: str) -> str:
    return word + ("이" if final(word) else "가")


KOREAN: tuple[Phenomenon, ...] = (
    Phenomenon(
        "topic 은/는",
        "은 after a consonant, 는 after a vowel",
        "{when} {adjective} {noun}{gap} {tail}.",
        {"when": _WHEN, "adjective": _ADJECTIVES, "tail": _THERE},
        _sides("은", _CLOSED, _OPEN),
    ),
    Phenomenon(
        "subject 이/가",
        "이 after a consonant, 가 after a vowel",
        "{when} {adjective} {noun}{gap} {tail}.",
        {"when": _WHEN, "adjective": _ADJECTIVES, "tail": _THERE},
        _sides("이", _CLOSED, _OPEN),
    ),
    Phenomenon(
        "object 을/를",
        "을 after a consonant, 를 after a vowel",
        "{when} {who} {adjective} {noun}{gap} {tail}.",
        {
            "when": _WHEN,
            "who": _words("아이는 할머니는 아저씨는 친구가"),
            "adjective": _ADJECTIVES[:5],
            "tail": choices("보았다|찾았다|바라보았다|좋아했다|잊지 않았다|그렸다"),
        },
        _sides("을", _CLOSED, _OPEN),
    ),
    Phenomenon(
        "direction 으로/로",
        "으로 after a consonant but ㄹ, 로 after a vowel or ㄹ",
        "{when} {who} {adjective} {noun}{gap} {tail}.",
        {
            "when": _WHEN,
            "who": _words("아이는 할머니는 아저씨는 친구가 여우는 모두"),
            "adjective": _ADJECTIVES[:5],
            "tail": choices("갔다|달려갔다|돌아왔다|걸어갔다|뛰어갔다|길을 떠났다"),
        },
        _sides("으로", _CLOSED_PLACES, _OPEN_PLACES),
    ),
    Phenomenon(
        "and 과/와",
        "과 after a consonant, 와 after a vowel",
        "{when} {adjective} {noun}{gap} {other} {tail}.",
        {
            "when": _WHEN,
            "adjective": _ADJECTIVES[:5],
            "other": _words("씨앗이 조각이 손수건이 바람이 구슬이"),
            "tail": _THERE,
        },
        _sides("과", _CLOSED, _OPEN),
    ),
    Phenomenon(
        "vocative 아/야",
        "아 after a consonant, 야 after a vowel",
        '{when} "{noun}{gap}, {call}" {who} {said}.',
        {
            "when": _WHEN,
            "call": choices("""같이 가자.|어서 와.|정말 고마워.|여기 있었구나!|걱정하지 마.|
            무슨 일이니?|이리 오렴.|잘 자.|오늘은 쉬자."""),
            "who": _words("할머니가 아저씨가 친구가 엄마가 이모가"),
            "said": _words("말했다 외쳤다 속삭였다"),
        },
        _sides("아", _CLOSED_NAMES, _OPEN_NAMES),
    ),
    Phenomenon(
        "honorific subject",
        "께서 with -(으)시-, 이/가 of a child without",
        "{when} {who} {where} {how} {gap}.",
        {
            "when": _WHEN,
            "where": choices("|집에서|나무 아래에서|마당에서"),
            "how": _words("조용히 천천히 혼자 다시 먼저"),
        },
        tuple(
            ({"who": f"{elder}께서", "gap": honoring}, {"who": _subject(young), "gap": plain})
            for elder, young in zip(_ELDERS, _YOUNG, strict=True)
            for honoring, plain in _VERBS
        ),
    ),
    Phenomenon(
        "honorific dative",
        "께 with 드리다, 에게 of a child with 주다",
        "{when} {who} {whom} {adjective} {what} {gap}.",
        {
            "when": _WHEN,
            "who": _words("미나는 지호는 유나는 현우는 아라는"),
            "adjective": _words("작은 예쁜 따뜻한 좋은"),
            "what": _words("""사과를 떡을 꽃을 빵을 죽을 케이크를 목도리를 모자를 바구니를
            편지를"""),
        },
        tuple(
            ({"whom": f"{elder}께", "gap": "드렸다"}, {"whom": f"{young}에게", "gap": "주었다"})
            for elder, young in zip(_ELDERS, _YOUNG, strict=True)
        ),
    ),
)
