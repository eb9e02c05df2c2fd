"""Keys, tokens and passwords: by the form that their issuer gives them, or by their name before."""

from __future__ import annotations

import re

from stages.text.privacy.rule import Rule, pattern_rule

_ISSUED = (
    r"A(?:KIA|SIA|BIA|CCA)[0-9A-Z]{16}",  # Amazon
    r"LTAI[A-Za-z0-9]{12,22}",  # Alibaba
    r"AKID[A-Za-z0-9]{32}",  # Tencent
    r"AIza[0-9A-Za-z_-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{30,}",  # Google
    r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,}",
    r"gl(?:pat|ptt|dt|rt|ft|soat|cbt|imt|agent)-[\w-]{20,}",  # GitLab
    # All hold digits, which names of styles joined by hyphens do not.
    r"sk-(?=[\w-]*\d)(?:(?:proj|svcacct|admin|ant|or|lf)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20,})",
    r"gsk_[A-Za-z0-9]{50,}|xai-[A-Za-z0-9]{60,}|r8_[A-Za-z0-9]{37}|pplx-[A-Za-z0-9]{40,}",
    r"nvapi-[\w-]{60,}|hf_[A-Za-z0-9]{30,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}",  # Slack
    r"https://hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{20,}",
    r"[rs]k_(?:live|test)_[0-9A-Za-z]{20,}|whsec_[A-Za-z0-9+/]{24,}",  # Stripe
    r"sq0(?:atp|csp)-[\w-]{22,}|EAAA[A-Za-z0-9_-]{60}",  # Square
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"SK[0-9a-f]{32}",  # Twilio
    r"SG\.[\w-]{22}\.[\w-]{43}|key-[0-9a-f]{32}",  # SendGrid, Mailgun
    r"\d{8,10}:AA[\w-]{32,34}",  # Telegram
    r"[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,38}",  # Discord
    r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|rubygems_[0-9a-f]{48}|dckr_pat_[\w-]{27,}",
    r"do[opr]_v1_[0-9a-f]{64}|dapi[0-9a-f]{32}|NRAK-[A-Z0-9]{27}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}",
    r"lin_api_[A-Za-z0-9]{40}|ATATT3[\w=-]{60,}|hvs\.[\w-]{24,}|AGE-SECRET-KEY-1[0-9A-Z]{58}",
    r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",  # JSON web tokens
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]{20,12000}?"
    r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
)
_NAME = (
    r"(?i:(?:api|access|secret|auth|private|account|encryption|signing|session|refresh|bearer)"
    r"[ _-]?(?:key|token|secret)|client[ _-]?secret|passw(?:or)?d|token|密钥|秘钥|密码|令牌)"
)
_ASSIGNS = r"(?:[=:：]>?|\bis\s|是|为)\s{0,3}[\"']?"
_NAMED = re.compile(rf"{_NAME}[\"']?\s{{0,3}}:?{_ASSIGNS}$")
_ACCESS_KEY = re.compile(rf"(?i:secret[ _-]?access[ _-]?key)[\"']?\s{{0,3}}{_ASSIGNS}$")
_PASSWORD_NAME = r"(?i:passw(?:or)?d|passphrase|pwd|密码)"


def _random_looking(value: str) -> bool:
    """Letters and digits mixed, as a key is and a placeholder, a word or a path is not."""
    digits = sum(c.isdigit() for c in value)
    mixed = digits >= 3 and len(value) - digits >= 3 and len(set(value)) >= 8
    return mixed and value[0] not in "/."


def _chosen_password(value: str) -> bool:
    """Letters with digits or signs, and no variable or placeholder."""
    letters = sum(map(str.isalpha, value))
    return 3 <= letters < len(value) and not re.search(r"[<>${}%()*\[\]]|\.\.|^/", value)


SECRET_RULES: tuple[Rule, ...] = (
    pattern_rule("secret", rf"(?<![\w-])(?:{'|'.join(_ISSUED)})"),
    pattern_rule(
        "secret",
        rf"{_ASSIGNS}(?P<it>[A-Za-z0-9/+]{{40}})(?![\w/+=])",
        needs=("ecret", "ECRET"),
        before=_ACCESS_KEY,
    ),
    pattern_rule(
        "secret",
        rf"{_ASSIGNS}(?P<it>[\w/+.-]{{16,}}={{0,2}})",
        _random_looking,
        before=_NAMED,
    ),
    pattern_rule(
        "secret",
        r"(?i:\bauthorization[\"']?\s?[:=]\s?[\"']?)?(?i:\bbearer|\bbasic)\s"
        r"(?P<it>[\w~+/.-]{20,}={0,2})",
        _random_looking,
        needs=("earer", "EARER", "asic"),
    ),
    pattern_rule(
        "secret",
        rf"{_PASSWORD_NAME}[\"']?\s{{0,3}}[=:]\s{{0,3}}([\"'])(?P<it>[^\s\"']{{8,64}})\1",
        _chosen_password,
        needs=("=", ":"),
    ),
    pattern_rule(
        "url_credentials",
        r"(?<=://)[^\s/:@<>\"'?#]*:[^\s/@<>\"']+(?=@[\w.-])",
        needs=("@",),
    ),
)
