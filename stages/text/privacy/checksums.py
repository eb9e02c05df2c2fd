"""Check digits and ranges of what identifies people and their money."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import date

# Length of an IBAN by country: the registry of ISO 13616, kept by SWIFT.
_IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}
_IBAN_HEAD = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}(?=[ -]?[A-Za-z0-9]{2})")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE58 = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
# Version bytes of pay-to addresses: Bitcoin, Litecoin, Dogecoin, Tron.
_WALLET_VERSIONS = frozenset({0x00, 0x05, 0x30, 0x32, 0x1E, 0x16, 0x41})
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
# Issuers by first digits and number of digits (ISO/IEC 7812 ranges in public use).
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,16}|6(?:011|4[4-9]\d|5\d\d)\d{12,15}"
    r"|62\d{14,17}|(?:2131|1800)\d{11}|35\d{14}"
    r"|(?:5018|5020|5038|5[6-8]\d\d|6304|6759|676[1-3]|0604|6390)\d{8,15}"
)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: every second digit from the right doubled, the digit sum divisible by
    10.
    """
    total = 0
    for place, digit in enumerate(int(d) for d in reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def card(text: str) -> bool:
    """A payment card: an issuer's range, its length, and Luhn's digit."""
    digits = re.sub(r"[ -]", "", text)
    return bool(_CARD.fullmatch(digits)) and len(set(digits)) > 1 and luhn(digits)


def iban(text: str) -> bool:
    """ISO 13616: the country's length; with country and check digits moved to the end and letters
    as 10-35, modulo 97 is 1.
    """
    compact = re.sub("[ -]", "", text).upper()
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def find_ibans(text: str, language: str = "") -> Iterator[tuple[int, int]]:
    """The spans of IBANs, written in one piece or in groups of four."""
    for head in _IBAN_HEAD.finditer(text):
        length = _IBAN_LENGTHS.get(head[1].upper(), 0)
        stop, count = head.start(), 0
        while count < length and stop < len(text):
            if count and count % 4 == 0 and text[stop] in " -":
                stop += 1
            if not (text[stop : stop + 1].isalnum() and text[stop].isascii()):
                break
            stop, count = stop + 1, count + 1
        cut = text[stop : stop + 1]
        whole = count == length > 0 and not (cut.isascii() and cut.isalnum())
        if whole and iban(text[head.start() : stop]):
            yield head.start(), stop


def chinese_resident_id(text: str) -> bool:
    """GB 11643-1999: 17 digits with a date of birth, weighted by 2^(17-i) mod 11, and a check
    character.
    """
    text = text.replace(" ", "")
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    if not date(1880, 1, 1) <= born <= date(2100, 1, 1):
        return False
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(text[:17]))
    return "10X98765432"[total % 11] == text[17].upper()


def social_security(text: str) -> bool:
    """Areas 000, 666 and 9xx, group 00 and serial 0000 were never issued."""
    digits = re.sub("[ -]", "", text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def base58_wallet(text: str) -> bool:
    """Base58Check: version byte, 20 bytes, and the first 4 of their double SHA-256; Ripple orders
    the digits in its own way.
    """
    number, alphabet = 0, _RIPPLE58 if text[0] == "r" else _BASE58
    for char in text:
        place = alphabet.find(char)
        if place < 0:
            return False
        number = number * 58 + place
    if number.bit_length() > 200:
        return False
    raw = number.to_bytes(25, "big")
    check = hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4]
    return raw[0] in _WALLET_VERSIONS and raw[21:] == check


def bech32_wallet(text: str) -> bool:
    """BIP 173 and BIP 350: the checksum over prefix and data is 1 or 0x2bc830a3."""
    prefix, _, data = text.lower().rpartition("1")
    if not prefix or any(char not in _BECH32 for char in data):
        return False
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = 1
    for value in values + [_BECH32.find(char) for char in data]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            check ^= generator if top >> bit & 1 else 0
    return check in (1, 0x2BC830A3)


def machine_readable_passport(line: str) -> bool:
    """The second line of a passport's machine-readable zone (ICAO 9303-4): three check digits."""

    def agrees(field: str, digit: str) -> bool:
        weighted = (
            (0 if c == "<" else int(c, 36)) * (7, 3, 1)[at % 3] for at, c in enumerate(field)
        )
        return digit.isdigit() and sum(weighted) % 10 == int(digit)

    return all(agrees(line[start:stop], line[stop]) for start, stop in ((0, 9), (13, 19), (21, 27)))
