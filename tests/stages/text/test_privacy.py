"""Personal data: spans, checksums, and what is none."""

from __future__ import annotations

import pytest

from stages.text.privacy import (
    KINDS,
    chinese_resident_id,
    find_spans,
    iban,
    luhn,
    mask,
    protect,
)
from tests.bench.privacy import STRUCTURED, ours, scores
from tests.labelled_personal_data import generated, looking_alike, presidio
from tests.real_text import needs_shared


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "jane.doe+news@mail.example.co.uk"),
        ("phone", "+86 138 1234 5678"),
        ("phone", "13812345678"),
        ("phone", "010-62345678"),
        ("phone", "+1 (415) 555-2671"),
        ("phone", "415-555-2671"),
        ("ip", "8.8.8.8"),
        ("ip", "2001:4860:4860::8888"),
        ("resident_id", "11010519491231002X"),  # the standard's own example
        ("credit_card", "4111 1111 1111 1111"),
        ("credit_card", "378282246310005"),
        ("iban", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "DE89370400440532013000"),
        ("social_security", "219-09-9999"),
        ("secret", "AKIAIOSFODNN7EXAMPLE"),
        ("secret", "ghp_" + "a1B2" * 9),
        ("mac", "00:1B:44:11:3A:B7"),
    ],
)
def test_each_kind_is_found_exactly(kind: str, text: str) -> None:
    for before, after in (("Contact: ", "."), ("", ""), ("电话", "，谢谢"), ("(", ")")):
        if before == "电话" and kind not in ("phone", "email", "resident_id"):
            continue
        around = f"{before} {text} {after}" if before == "电话" else f"{before}{text}{after}"
        spans = find_spans(around)
        assert [(s.kind, around[s.start : s.stop]) for s in spans] == [(kind, text)], around


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4 of the library",
        "v10.2.3.4",
        "numpy 2.4.6 and torch 2.13.0",
        "listen on 127.0.0.1 or 192.168.1.10 or 10.0.0.1",
        "2026-11-22 13:00:45.123456",
        "built 20261122130045",
        "3.14159265358979",
        "12:34:56",
        "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112",  # Luhn fails
        "110105194912310021",  # check character fails
        "GB82 WEST 1234 5698 7654 33",  # modulo 97 fails
        "user@localhost",
        "std::vector::iterator",
        "@decorator and a.b@c",
    ],
)
def test_what_is_no_personal_data_stays(text: str) -> None:
    assert find_spans(text) == []


@pytest.mark.parametrize(
    ("kind", "before", "value", "after"),
    [
        ("passport", "Passport number: ", "E12345678", " expired"),
        ("passport", "护照号码：", "G87654321", "。"),
        ("passport", "", "L898902C36UTO7408122F1204159ZE184226B<<<<<10", ""),  # ICAO 9303's own
        ("crypto_wallet", "to ", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", " please"),
        ("crypto_wallet", "to ", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "."),
        ("crypto_wallet", "to ", "0xde709f2102306220921060314715629080e2fb77", "."),
        ("gps", "located at ", "39.9042, 116.4074", " in town"),
        ("gps", "", "40° 26′ 46″ N 79° 58′ 56″ W", ""),
        ("phone", "Phone: ", "0490 75 40 81", ""),
        ("phone", "手机", "+49 1512 3450021", "，微信同号"),
        ("phone", "", "020 7946 0958", " please"),
        ("phone", "Desk: ", "(+358) 203619019", ""),
        ("phone", "Mobile: ", "(0661)-435545", ""),
        ("phone", "answering at ", "48/526-0574", ""),
        ("phone", "Fax: ", "06-91/832 1406", ""),
        ("phone", "手机", "8 (301) 123-55-87", "，谢谢"),
        ("secret", "api_key = '", "9aF3kQ7xZ2mB8vL4", "'"),
        ("credit_card", "card number ", "630427373398", " is lost"),
    ],
)
def test_kinds_that_need_their_surroundings(kind: str, before: str, value: str, after: str) -> None:
    text = f"{before}{value}{after}"
    assert [(s.kind, text[s.start : s.stop]) for s in find_spans(text, "en")] == [(kind, value)]


def test_the_same_numbers_without_their_surroundings_are_left() -> None:
    for text in (
        "E12345678 is the part",
        "the vector 39.9042, 116.4074 is long",
        "630427373398 rows",
        "password = changeme-changeme",
        "490 75 40 81",
        "account 00632000001783",
        "Boston, MA 02110-1301 USA",
        "on 05/12 2019 and 05/123 4567",
        "see 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
    ):
        assert find_spans(text, "en") == [], text


def test_actions_by_kind() -> None:
    text = "Write to a@b.org from 8.8.8.8."
    assert protect(text, "en", {"email": "remove"}).text == "Write to  from <ip>."
    assert protect(text, "en", {"email": "keep"}).text == "Write to a@b.org from <ip>."
    dropped = protect(text, "en", {"ip": "drop"})
    assert (dropped.dropped, dropped.text) == ("ip", text)


def test_generated_texts_are_labelled_as_well_as_the_target_asks() -> None:
    found = scores(generated(600), ours)
    assert set(found) == set(KINDS)
    assert all(found[kind][2] >= 0.95 for kind in STRUCTURED), found
    assert not [text for text in looking_alike(1500) if find_spans(text)]


def test_spans_do_not_depend_on_what_was_read_before() -> None:
    items = generated(60)
    once = [find_spans(item.text, item.language) for item in items]
    assert once == [find_spans(item.text, item.language) for item in reversed(items)][::-1]


@needs_shared
def test_presidio_research_is_labelled_as_well_as_the_target_asks() -> None:
    for name in ("synth_dataset_v2", "generated_small"):
        found = scores(presidio(name), ours)
        assert all(row[2] >= 0.95 for row in found.values() if row[3] >= 5), found


def test_checksums_against_published_examples() -> None:
    assert luhn("79927398713") and not luhn("79927398710")
    assert iban("FR14 2004 1010 0505 0001 3M02 606") and not iban(
        "FR14 2004 1010 0505 0001 3M02 607"
    )
    assert chinese_resident_id("440308199901101512") and not chinese_resident_id(
        "440308199913101512"
    )


def test_masking_replaces_spans_and_counts_them() -> None:
    text, kinds = mask("Write to a@b.org or c@d.org, call 13812345678.")
    assert text == "Write to <email> or <email>, call <phone>."
    assert kinds == {"email": 2, "phone": 1}
    assert mask(text) == (text, {})


def test_credentials_in_urls_are_masked_and_the_host_stays() -> None:
    assert mask("git clone https://bob:hunter2@git.example.org/x.git")[0] == (
        "git clone https://<url_credentials>@git.example.org/x.git"
    )
