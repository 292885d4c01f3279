"""Korean for `stories`: people, places and things; the plots are in `korean.txt`.

The stories are not translations of the English ones. The narration of a story uses one of three
speech levels (-다, -어요, -습니다) throughout; quoted speech is independent of it. Children's names
take the suffix -이 after a consonant (민준이는).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from holo_cli.data.sources.stories.josa import PARTICLES, attach, familiar


def _names(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


CHILDREN = _names("""민준 서연 지호 하은 도윤 수아 예준 지우 시우 서윤 하준 은우 유나 다은
준서 소율 건우 채원 현우 나연 윤호 새봄 한결 아라 슬기 가람 미나 태오 솔 누리""")
PETS = _names("콩 보리 두부 초롱 토리 몽실 라온 나루 까미 여울 단비 송이 복슬 동글 솜 반디 머루 쫑")
ANIMALS = _phrases("""아기 여우|아기 토끼|꼬마 다람쥐|고슴도치|오소리|아기 곰|너구리|생쥐|
수달|아기 사슴|두더지|염소""")
WORKERS = _phrases("""빵집 아저씨|꽃집 아주머니|목수 할아버지|대장간 아저씨|과수원 할머니|
떡집 아주머니|국숫집 할머니|양치기 할아버지""")
KEEPERS = _phrases("등대지기 할아버지|등대지기 아저씨|등대지기 할머니|등대지기 아주머니")
MANNERS = _names("씩씩한 명랑한 조용한 영리한 수줍은 부지런한 상냥한 다정한")
GROWN_UP_MANNERS = _phrases("부지런한|다정한|인자한|솜씨 좋은|마음씨 고운|말수 적은")
RELATIVES = _names("할머니 할아버지 엄마 아빠 이모 삼촌 고모")
ELDERS = _phrases("""우체부 아저씨|학교 선생님|늙은 부엉이|약초 할머니|책방 아주머니|
뱃사공 아저씨|나무꾼 할아버지|찻집 할머니""")
HOMES = _phrases("""바닷가 작은 마을|숲속 작은 집|언덕 위 파란 집|강가 오두막|
산 아래 조용한 마을|넓은 들판 옆 마을|물레방아 옆 작은 집|감나무가 있는 집|골목 끝 작은 집|
호숫가 마을|큰 느티나무 옆 집|돌다리 건너 마을""")
TIMES = _phrases("""어느 봄날 아침|어느 여름날|어느 가을날|바람 부는 어느 날|
햇살 좋은 어느 날|어느 흐린 날|어느 장날 아침|어느 조용한 오후|봄이 시작되던 날|
여름의 마지막 날|어느 맑은 날|어느 날 아침 일찍""")
_THINGS = {
    "food": """배 한 바구니|따뜻한 죽|갓 구운 빵|꿀 한 단지|호두 한 봉지|산딸기 한 그릇|
달걀 한 꾸러미|따끈한 떡|호박죽 한 그릇|군고구마""",
    "cake": "사과 케이크|호두빵|딸기 케이크|당근 케이크|밤빵|옥수수빵|꿀빵|고구마 케이크",
    "feast": "마을 잔치|친구의 결혼식|등불 축제|달맞이 잔치|학교 잔치",
    "plant": "해바라기|봉숭아|토마토|호박|나팔꽃|딸기|오이|채송화|수박|완두콩",
    "prize": "금빛 컵|은메달|커다란 호박|꿀빵|빨간 리본|새 연|나무 왕관|작은 북",
    "stock": "도토리|알밤|말린 열매|잣|사과|버섯|고구마|호두",
    "boats": "고깃배|작은 배|돛단배|오징어배",
    "reason": "옛집이 너무 작아졌|아버지가 새 일을 구했|강물이 자주 넘쳤|산불로 옛집을 잃었",
    "name": "점박이|단추|별이|복이|구름이|솜이|조약돌",
}
THINGS = {key: _phrases(fillers) for key, fillers in _THINGS.items()}

GRAMMAR = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
STYLES = 3  # -다, -어요, -습니다


def _one(rng: random.Random, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]


def cast(rng: random.Random, hero: str) -> dict[str, str]:
    """The people and the scene of one story, by slot name."""
    words = {
        "rel": _one(rng, RELATIVES),
        "elder": _one(rng, ELDERS),
        "home": _one(rng, HOMES),
        "when": _one(rng, TIMES),
        "hand": "앞발" if hero == "animal" else "손",
        **{key: _one(rng, fillers) for key, fillers in THINGS.items()},
    }
    if hero in ("worker", "keeper"):
        words["hero"] = _one(rng, WORKERS if hero == "worker" else KEEPERS)
        words["who"] = f"{_one(rng, GROWN_UP_MANNERS)} {words['hero']}"
        if hero == "keeper":  # after the introduction, 등대지기 할머니 is 할머니
            words["hero"] = words["hero"].split()[1]
        return words
    names = PETS if hero == "animal" else CHILDREN
    bare = _one(rng, names)
    other = _one(rng, [name for name in names if name != bare])
    words["hero"], words["friend"] = familiar(bare), familiar(other)
    # vocative: 민준아, 지수야
    words["call"], words["fcall"] = attach(bare, "아"), attach(other, "아")
    kind = _one(rng, ANIMALS) if hero == "animal" else "아이"
    words["kind"] = kind
    words["who"] = f"{_one(rng, MANNERS)} {kind}"
    if hero == "animal":
        fkind = _one(rng, [animal for animal in ANIMALS if animal != kind])
        words["fname"] = f"{fkind} {words['friend']}"
    else:
        words["fname"] = words["friend"]
    return words


def inflect(words: dict[str, str], slot: str) -> str:
    """`{key:은}` is the filler with a particle in the form that fits its last syllable."""
    key, _, particle = slot.partition(":")
    if particle not in PARTICLES:
        raise KeyError(slot)
    return attach(words[key], particle)


def finish(sentence: str) -> str:
    """The sentence without surrounding white space (Korean has no capitals)."""
    return sentence.strip()
