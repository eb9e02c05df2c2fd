"""Texts with personal data of known kinds and places, generated, and texts that only look so.

The values are invented, with valid check digits; phone numbers come from the numbering plans' own
examples with their last digits drawn anew. Every text also holds something that is not personal
data: versions, timestamps, hashes, private addresses, prices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import phonenumbers

from stages.examples.personal import identity_digit, luhn_digit
from tests.real_text import SHARED

Place = tuple[int, int, str]
"""Start, stop, kind."""


@dataclass(frozen=True)
class Labelled:
    """A text with the places of its personal data."""

    text: str
    language: str
    places: frozenset[Place]


_NAMES = [
    "anna.berg",
    "wei_zhang",
    "j.smith",
    "maria-lopez",
    "li.na",
    "omar99",
    "k.tanaka",
    "p.dubois",
]
_HOSTS = [
    "mail.example.co.uk",
    "post-veldon.com",
    "163.com",
    "uni-trier.de",
    "corp.example.cn",
    "box.fr",
]
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_REGIONS = [
    "US",
    "GB",
    "CN",
    "DE",
    "FR",
    "JP",
    "IN",
    "BR",
    "AU",
    "HK",
    "TW",
    "KR",
    "ES",
    "IT",
    "RU",
]


def _digits(random: Random, count: int) -> str:
    return "".join(random.choice("0123456789") for _ in range(count))


def _token(random: Random, count: int) -> str:
    return "".join(random.choice(_ALPHABET) for _ in range(count))


def _email(random: Random) -> str:
    return f"{random.choice(_NAMES)}{random.choice(('', '+news', str(random.randrange(99))))}@{random.choice(_HOSTS)}"  # noqa: E501


def _phone(random: Random) -> str:
    """A number of some country as it is written abroad, or as it is written at home."""
    region = random.choice(_REGIONS)
    kind = random.choice(
        (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
    )
    number = phonenumbers.example_number_for_type(region, kind)
    digits = str(number.national_number)
    for _ in range(50):
        candidate = phonenumbers.PhoneNumber(
            number.country_code,
            int(digits[:-4] + _digits(random, 4)),
            italian_leading_zero=number.italian_leading_zero,
        )
        if phonenumbers.is_valid_number(candidate):
            number = candidate
            break
    form = random.choice(
        (
            phonenumbers.PhoneNumberFormat.INTERNATIONAL,
            phonenumbers.PhoneNumberFormat.E164,
            phonenumbers.PhoneNumberFormat.NATIONAL,
        )
    )
    return str(phonenumbers.format_number(number, form))


def _card(random: Random) -> str:
    prefix, length = random.choice(
        (("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("622848", 19))
    )
    body = prefix + _digits(random, length - len(prefix) - 1)
    digits = body + luhn_digit(body)
    if length == 16 and random.random() < 0.5:
        joint = random.choice(" -")
        return joint.join(digits[at : at + 4] for at in range(0, 16, 4))
    return digits


def _iban(random: Random) -> str:
    country, pattern = random.choice(
        (("DE", "n18"), ("GB", "a4n14"), ("FR", "n23"), ("NL", "a4n10"))
    )
    body = "".join(
        _digits(random, int(part[1:]))
        if part[0] == "n"
        else _token(random, 60)
        .translate({ord(c): None for c in "abcdefghijklmnopqrstuvwxyz0123456789"})[: int(part[1:])]
        .ljust(int(part[1:]), "X")
        for part in pattern.replace("n", " n").replace("a", " a").split()
    )
    moved = "".join(str(int(c, 36)) for c in body + country + "00")
    compact = f"{country}{98 - int(moved) % 97:02d}{body}"
    if random.random() < 0.5:
        return " ".join(compact[at : at + 4] for at in range(0, len(compact), 4))
    return compact


def _resident(random: Random) -> str:
    birth = (
        f"{random.randrange(1940, 2015)}{random.randrange(1, 13):02d}{random.randrange(1, 29):02d}"
    )
    body = random.choice(("110105", "310104", "440308", "510107")) + birth + _digits(random, 3)
    return body + identity_digit(body)


def _wallet(random: Random) -> str:
    if random.random() < 0.4:
        return "0x" + "".join(random.choice("0123456789abcdefABCDEF") for _ in range(40))
    if random.random() < 0.3:
        return "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"  # BIP 173's form, a published address
    raw = bytes([random.choice((0, 5))]) + random.randbytes(20)
    raw += hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4]
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _BASE58[rest] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def _social_security(random: Random) -> str:
    area = random.choice((123, 219, 401, 650, 801))
    return f"{area}-{random.randrange(1, 99):02d}-{random.randrange(1, 9999):04d}"


def _secret(random: Random) -> str:
    return random.choice(
        (
            "AKIA" + _token(random, 16).upper(),
            "ghp_" + _token(random, 36),
            "sk-proj-" + _token(random, 40),
            "xoxb-" + _digits(random, 12) + "-" + _token(random, 24),
            "AIza" + _token(random, 35),
            "glpat-" + _token(random, 20),
            "npm_" + _token(random, 36),
        )
    )


def _ip(random: Random) -> str:
    if random.random() < 0.25:
        return "2a00:1450:4001:" + ":".join(f"{random.randrange(1, 65536):x}" for _ in range(5))
    return f"{random.choice((8, 23, 52, 93, 114, 151, 185))}.{random.randrange(1, 255)}.{random.randrange(255)}.{random.randrange(1, 255)}"  # noqa: E501


def _gps(random: Random) -> str:
    north, east = random.uniform(-80, 80), random.uniform(-170, 170)
    return f"{north:.{random.randint(4, 6)}f}, {east:.{random.randint(4, 6)}f}"


_KINDS: dict[str, tuple[Callable[[Random], str], tuple[str, ...], tuple[str, ...]]] = {
    "email": (
        _email,
        ("Write to {v} for details.", "Contact <{v}> today.", "{v} answered the question."),
        ("请发邮件到{v}。", "邮箱：{v}，欢迎来信。"),
    ),
    "phone": (
        _phone,
        ("Call {v} after six.", "Phone: {v}", "My mobile is {v}, thanks.", "Fax {v}."),
        ("电话：{v}。", "请致电 {v} 咨询。", "手机{v}，微信同号。"),
    ),
    "ip": (
        _ip,
        ("The request came from {v} yesterday.", "Blocked {v} after ten attempts."),
        ("访问来自 {v} 。",),
    ),
    "resident_id": (
        _resident,
        ("Resident id {v} was checked.",),
        ("身份证号码是{v}。", "证件号：{v}"),
    ),
    "social_security": (
        _social_security,
        ("Her SSN is {v}.", "Social security number: {v}"),
        ("社保号码（美国）{v}。",),
    ),
    "credit_card": (
        _card,
        ("He paid with card {v} last week.", "Card number: {v}"),
        ("信用卡号 {v} 已扣款。", "卡号：{v}"),
    ),
    "iban": (_iban, ("Please transfer to {v} by Friday.", "IBAN: {v}"), ("请汇款到 {v} 。",)),
    "passport": (
        lambda r: r.choice("EGX") + _digits(r, 8),
        ("Passport number: {v}", "passport no. {v} expired."),
        ("护照号码：{v}。", "护照号{v}已过期。"),
    ),
    "secret": (_secret, ("Never commit {v} to a repository.", "key = {v}"), ("密钥 {v} 已泄露。",)),
    "url_credentials": (
        lambda r: f"{r.choice(('bob', 'deploy', 'root'))}:{_token(r, 10)}",
        ("git clone https://{v}@git.example.org/app.git now.",),
        ("数据库 postgres://{v}@db.example.cn/prod 。",),
    ),
    "crypto_wallet": (
        _wallet,
        ("Send it to {v} please.", "Wallet {v} was emptied."),
        ("钱包地址 {v} 。",),
    ),
    "mac": (
        lambda r: r.choice(":-").join(f"{r.randrange(256):02X}" for _ in range(6)),
        ("The card with {v} was replaced.",),
        ("网卡地址 {v} 。",),
    ),
    "gps": (_gps, ("The tower is located at {v} on the map.", "GPS: {v}"), ("坐标：{v}。",)),
}


def _not_personal(random: Random) -> str:
    a, b, c, d = (random.randrange(1, 200) for _ in range(4))
    stamp = f"2026-{random.randrange(1, 13):02d}-{random.randrange(1, 29):02d}"
    time = f"{random.randrange(24):02d}:{random.randrange(60):02d}:{random.randrange(60):02d}"
    return random.choice(
        (
            f"version {a}.{b}.{c}.{d} of the library",
            f"Chrome/{a}.0.{b * 31}.{c}",
            f"v{a}.{b}.{c}.{d}",
            f"numpy-{a}.{b}.{c}",
            f"release {a}.{b}.{c}.{d}",
            f"{stamp} {time}.{_digits(random, 6)}",
            f"{stamp}T{time}+08:00",
            f"built {stamp.replace('-', '')}{time.replace(':', '')}",
            f"epoch 17{_digits(random, 8)}",
            f"from {stamp} to {stamp}",
            "listen on 127.0.0.1 or 192.168.1.10",
            f"sha1 {hashlib.sha1(random.randbytes(4), usedforsecurity=False).hexdigest()}",
            f"md5 {hashlib.md5(random.randbytes(4), usedforsecurity=False).hexdigest()}",
            f"{_digits(random, 3)}.{_digits(random, 7)}",
            f"ISBN 978-3-16-{_digits(random, 6)}-0",
            f"{a},{b:03d},{c:03d} euros",
            "icon@2x.png",
            "git@github.com:org/repo.git",
            f"weights {a / 999:.4f}, {b / 999:.4f}",
            "std::vector::iterator",
            f"pages {a}-{a + b}",
            f"版本 {a}.{b}.{c}.{d} 已发布",
            f"{stamp} 更新",
        )
    )


def looking_alike(count: int, seed: int = 3) -> list[str]:
    """Texts with nothing personal in them: versions, timestamps, hashes and the like."""
    random = Random(seed)
    return [f"{_not_personal(random)}; {_not_personal(random)}." for _ in range(count)]


def generated(count: int, seed: int = 17) -> list[Labelled]:
    """Texts with one to three pieces of personal data each, all kinds alike often."""
    random = Random(seed)
    found = []
    for number in range(count):
        language = "zh" if number % 3 == 2 else "en"
        text, places = "", set()
        for _ in range(random.randint(1, 3)):
            kind = random.choice(list(_KINDS))
            make, english, chinese = _KINDS[kind]
            value = make(random)
            before, after = random.choice(chinese if language == "zh" else english).split("{v}")
            text += f"{_not_personal(random)}. {before}"
            places.add((len(text), len(text) + len(value), kind))
            text += f"{value}{after}\n"
        found.append(Labelled(text, language, frozenset(places)))
    return found


_PRESIDIO = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip",
    "IBAN_CODE": "iban",
    "CREDIT_CARD": "credit_card",
    "US_SSN": "social_security",
}


def presidio(name: str = "synth_dataset_v2") -> list[Labelled]:
    """A synthetic set of Microsoft's: the kinds that have a structure, of all its documents.

    The rules were improved on "synth_dataset_v2"; "generated_small" was not looked at.
    """
    rows = json.loads((SHARED / "pii" / f"{name}.json").read_text("utf-8"))
    return [
        Labelled(
            row["full_text"],
            "en",
            frozenset(
                (s["start_position"], s["end_position"], _PRESIDIO[s["entity_type"]])
                for s in row["spans"]
                if s["entity_type"] in _PRESIDIO
            ),
        )
        for row in rows
    ]
