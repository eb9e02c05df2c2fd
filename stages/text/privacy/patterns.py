"""The kinds of personal data: for each its patterns and, where there is one, a check.

The order is that of precedence: an earlier kind keeps a span that a later one overlaps.
"""

from __future__ import annotations

import re

from stages.text.privacy import checksums
from stages.text.privacy.network import NETWORK_RULES
from stages.text.privacy.phones import find_phones
from stages.text.privacy.places import PLACE_RULES
from stages.text.privacy.rule import Rule, pattern_rule
from stages.text.privacy.secrets import SECRET_RULES

_FILE_ENDING = re.compile(r"\.(?:png|jpe?g|gif|svg|webp|ico|[jt]s|css|html?|py|so|dll|json)$", re.I)
_LATIN = "A-Za-zÀ-ÖØ-öø-ɏ"
_PAYMENT = re.compile(r"(?i)(?:card|\bcc\b|credit|debit|visa|master|amex|卡)[^\n]{0,40}$")
_PASSPORT = (
    r"(?i:passports?|passeport|pasaporte|passaporto|passaporte|pasaport|paszportu?|paspoort"
    r"|reisepass(?:nummer)?|pass(?=-?nr)|(?:загран)?паспорта?|パスポート|旅券|여권|护照|護照)"
    r"(?i:[ -]?\(?(?:no|nr|num|number|numéro|número|numero|nummer|номер)\b)?"
    r"(?:号码|號碼|番号|번호|号|號)?(?i:\.|\s?[n№][°ºr]?\.?)?(?:\s?(?:is|#|:|：|是|为|為|-))?\s?[:：]?\s?"
)
_PASSPORT_PARTS = (
    "asspor", "ASSPOR", "assepor", "asapor", "ASAPOR", "assapor", "aszpor", "aspoor", "eisepass",
    "ass-N", "ass-n", "аспорт", "パスポート", "旅券", "여권", "护照", "護照",
)  # fmt: skip


def _address(email: str) -> bool:
    """No file name such as icon@2x.png, no git@host."""
    return not email.startswith("git@") and not _FILE_ENDING.search(email)


def _long_card(text: str) -> bool:
    return checksums.card(text) and sum(c.isdigit() for c in text) in (15, 16, 19)


RULES: tuple[Rule, ...] = (
    *SECRET_RULES,
    pattern_rule(
        "email",
        rf"(?<![\w.+%{_LATIN}-])(?<!://)[{_LATIN}0-9_][\w.+%'{_LATIN}-]{{0,63}}"
        rf"@(?:[{_LATIN}0-9-]{{1,63}}\.){{1,8}}(?:xn--[a-z0-9-]{{2,59}}|[A-Za-z]{{2,24}})(?![\w-])",
        _address,
        needs=("@",),
    ),
    pattern_rule(
        "crypto_wallet",
        r"(?<!\w)(?:(?:bc|ltc|tb|addr|stake|cosmos|osmo|bnb)1[a-z0-9]{25,100}"
        r"|BC1[A-Z0-9]{25,87})(?!\w)",
        checksums.bech32_wallet,
        needs=("bc1", "tc1", "tb1", "BC1", "addr1", "stake1", "cosmos1", "osmo1", "bnb1"),
    ),
    pattern_rule(
        "crypto_wallet",
        r"(?<!\w)[13LMDTA9r][1-9A-HJ-NP-Za-km-z]{24,34}(?!\w)",
        checksums.base58_wallet,
    ),
    pattern_rule("crypto_wallet", r"(?<!\w)0x[0-9a-fA-F]{40}(?!\w)", needs=("0x",)),
    pattern_rule("crypto_wallet", r"(?<!\w)[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}(?!\w)"),  # Monero
    pattern_rule(
        "resident_id",
        r"(?<![\dA-Za-z])[1-9]\d{5}(?:\d{11}[\dXx]| \d{8} \d{3}[\dXx]|\d{8} \d{3}[\dXx])"
        r"(?![\dA-Za-z])",
        checksums.chinese_resident_id,
    ),
    pattern_rule(
        "passport",
        r"(?<![\w<])[A-Z0-9<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z0-9<]{14}[\d<]\d(?![\w<])",
        checksums.machine_readable_passport,
    ),
    pattern_rule(
        "passport",
        rf"{_PASSPORT}(?P<it>(?=(?:[A-Z]{{0,3}}\d){{5}})[A-Z0-9]{{7,9}})(?!\w)",
        needs=_PASSPORT_PARTS,
    ),
    pattern_rule(
        "passport",
        r"(?i:паспорт)\w{0,3}[^\d\n]{0,16}"
        r"(?P<it>\d{2} ?\d{2} (?:№ ?)?\d{6}|\d{2} (?:№ ?)?\d{7})(?!\d)",
        needs=("аспорт",),
    ),
    Rule("iban", checksums.find_ibans),
    pattern_rule(
        "credit_card", r"(?<![\w.-])\d{4}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\w-]|\.\d)", _long_card
    ),
    pattern_rule(
        "credit_card", r"(?<![\w.-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?![\w-]|\.\d)", checksums.card
    ),
    pattern_rule(
        "credit_card", r"(?<![\w.-])3[068]\d\d([ -])\d{6}\1\d{4}(?![\w-]|\.\d)", checksums.card
    ),
    pattern_rule(
        "credit_card", r"(?<![\w.-])\d{12,19}(?![\w-]|\.\d)", checksums.card, before=_PAYMENT
    ),
    pattern_rule(
        "social_security",
        r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])",
        checksums.social_security,
        needs=("-",),
    ),
    pattern_rule(
        "social_security",
        r"(?i:\bssn|social security)(?i:\s(?:number|no\.?|#))?[^\w\n]{0,3}(?i:(?:is|was|of)\s)?"
        r"(?P<it>\d{3} ?\d{2} ?\d{4})(?![\w-])",
        checksums.social_security,
    ),
    *NETWORK_RULES,
    *PLACE_RULES,
    Rule("phone", find_phones),
)
KINDS = tuple(dict.fromkeys(rule.kind for rule in RULES))
