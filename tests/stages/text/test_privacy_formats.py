"""Personal data as people write it all over the world, and what is written like it.

`[[kind|value]]` in a text is a span that must be found exactly; nothing else may be.
"""

from __future__ import annotations

import re

import pytest

from stages.text.privacy import find_spans

WRITTEN = """
en|US [[phone|(212) 555-0147]], [[phone|1-800-555-0199]], [[phone|416-555-0123 ext. 45]]
en|Mobile No. [[phone|98765 43210]]; London [[phone|(020) 7946 0958]]
en|Sydney [[phone|(02) 9876 5432]]; Lagos [[phone|+234 803 123 4567]]
de|Tel [[phone|089 / 32 16 80]], Fax: [[phone|030/12345679]], Wien: [[phone|+43 1 5123456]]
fr|Téléphone : [[phone|0142685300]], portable [[phone|06-12-34-56-78]]
es|Teléfono: [[phone|912 345 678]], móvil [[phone|612 34 56 78]]. Llámanos al [[phone|91 234 56 78]]
es|Tel. [[phone|(55) 5123 4567]]
it|Tel. [[phone|06 6982 1234]]; cell. [[phone|347 123 4567]]
pt|Telefone: [[phone|(11) 98765-4321]]. Ligue para [[phone|(21) 2345-6789]]
pl|tel. [[phone|22 123 45 67]] albo [[phone|+48 601 234 567]]
ru|тел. [[phone|8-800-555-35-35]], моб. [[phone|+7(916)123-45-67]]
tr|Telefon: [[phone|(0212) 345 67 89]]
ja|電話番号：[[phone|03-1234-5678]]、携帯 [[phone|090-1234-5678]]
ko|전화: [[phone|02-312-3456]], 휴대폰 [[phone|010-1234-5678]]
he|טלפון: [[phone|03-123-4567]]
zh|电话：[[phone|（0755）26543210]]，热线 [[phone|400 820 8820]]，客服：[[phone|4008208820]]
en|"[[email|user@example.xn--p1ai]]" and [[email|müller@example.de]]; [[email|info@münchen.de]] too
en|see http://[[ip|93.184.216.34]]/path, IP:[[ip|93.184.216.34]], [[ip|93.184.216.34]]:8080
en|Made by version 1.2.3.4 of the library. Nobody answered; [[ip|52.7.9.201]] did
en|server [[ip|2606:4700::]]/32 and [[ip|::ffff:93.184.216.34]]
en|MAC [[mac|001b.4411.3ab7]]; SSN [[social_security|536 22 1234]]
en|social security number is [[social_security|536221234]]
en|Diners [[credit_card|3056 930902 5904]]
en|IBAN [[iban|ES91 2100 0418 4502 0005 1332]] BIC CAIXESBB; [[iban|GB29-NWBK-6016-1331-9268-19]]
en|[[iban|be68 5390 0754 7034]]
en|API key: [[secret|9aF3kQ7xZ2mB8vL4c6N1]], Bearer [[secret|Qk3mPLXw2V5rTyUiOpAsDfGhJkLzXcVbNm1]]
en|AWS_SECRET_ACCESS_KEY="[[secret|wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY]]"
en|DB_PASSWORD="[[secret|Tr0ub4dor&3xyz!]]"
en|[[secret|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]], [[secret|whsec_4eC39HqLyjWDarjtT1zdp7dcAB]]
en|mongodb+srv://[[url_credentials|user:pa:ss]]@a.net redis://[[url_credentials|:pw]]@r.host:6379
en|btc [[crypto_wallet|BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4]]
en|xrp [[crypto_wallet|rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh]]
en|[[gps|N 40° 42' 46" W 74° 00' 22"]]; [[gps|40° 42.767' N, 74° 0.367' W]]
en|lat=[[gps|40.7128]]&lon=[[gps|-74.0060]], maps?q=[[gps|40.7128,-74.0060]]
en|London ([[gps|51.5074, -0.1278]]). GPS: [[gps|48.8584,2.2945]].
zh|[[gps|北纬39°54′26″，东经116°23′29″]]；经纬度：[[gps|116.4074,39.9042]]
de|Reisepassnummer: [[passport|C01X00T47]]
fr|Passeport n° [[passport|12AB34567]]
es|Pasaporte: [[passport|AAA123456]]
ru|паспорт № [[passport|45 12 345678]]
ja|パスポート番号：[[passport|TK1234567]]
zh|護照號碼：[[passport|301234567]]，身份证[[resident_id|110105 19491231 002X]]
"""
ONLY_ALIKE = """
en|Version: 1.2.3.4, ver. 4.15.6.17, version number 4.15.6.7, current version (4.15.6.17)
en|"version": "1.2.3.4"
en|firmware 3.12.8.101
en|Oracle 11.2.0.4 and 12.1.0.2, OpenSSL 3.0.13.1, Skype 8.96.0.207
en|upgraded from 2.0.0.1 to 2.0.0.5 yesterday; pip install foo==1.2.3.4
en|3.2.1.4 Memory allocation
en|See section 12.4.1.2, table 5.6.7.8 and § 4.15.1.20; EC 3.4.21.4 is trypsin; OID 2.5.29.17
zh|版本号：4.15.6.17，更新到4.15.6.17版，见第3.2.1.4节
es|versión 4.15.6.17
ru|версия 4.15.6.17
ja|バージョン 4.15.6.17
en|a::b, ::before and std::string; 12:34:56:78:9a:bc:de:f0
en|class="sk-toggleable__label-arrow sk-estimator-doc-link-container-element"
en|password=/usr/share/dict/american-english-2020; password: "{{ vault_password_1 }}"
en|the interval (0.12345, 0.67890), the point (12.34567, 45.67890)
en|invoice no. 0123-456-789; Call of Duty 2003-2020; passport to success: 12345678 copies
de|Achse: 0 18 36 54 72 90, Losnummer 0123 4567
en|GSM 900 1800 1900, HP 537627-001 and Ligue 1 2023-2024
zh|手机价格 3999-4999 元
en|https://user@example.com/path
"""


def _marked(line: str) -> tuple[str, str, set[tuple[int, int, str]]]:
    """Language, text and spans of a line."""
    language, _, rest = line.partition("|")
    text, spans = "", set()
    for before, kind, value in re.findall(r"(.*?)(?:\[\[(\w+)\|(.*?)\]\]|$)", rest):
        text += before
        if kind:
            spans.add((len(text), len(text) + len(value), kind))
        text += value
    return language, text, spans


@pytest.mark.parametrize("line", [*WRITTEN.strip().splitlines(), *ONLY_ALIKE.strip().splitlines()])
def test_what_is_marked_is_found_and_nothing_else(line: str) -> None:
    language, text, spans = _marked(line)
    assert {(s.start, s.stop, s.kind) for s in find_spans(text, language)} == spans, text
