"""Personal data: spans, checksums, and what is none."""

from __future__ import annotations

import pytest

from stages.text.privacy import chinese_resident_id, find_spans, iban, luhn, mask


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
