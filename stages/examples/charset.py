"""In which charset a page is stored, and what its labels say of it.

Most labels are right; some are missing, some wrong in the ways the web has them wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_SIMPLIFIED = """\
业丛东丝两个为丽乌乐书买亚产亲从仓们会伦兰关兴养内册写农减凯则别办动区医单卖卢卫厨号员响园国图场坚墙声壳
处头夹奖奥娅学宠尔岛币师带帮广应开张录总悬戏户换数旧时术条来树样桥樱欢汤没泽浆湾灯点烛烟热爱猎猫猬獭玛
现画着矿砖笔简篮红约纳纸纽织终绍经结给继续绳维绿编缝罗职艺节芦苇苍萨蓝见规觉计认让记讲许识诉词话说请诺
读课谁谈谢贝货费车轻较边达过运还这进远邓邮邻针钓钟钥铃铅铛银错锤镇镜长门问闹闻阳难静页顶须题颜风飞饭饺
饼马鱼鲍鸟鸡鹅鹉鹤鹦鹭鹰黄齐龟"""
_TRADITIONAL = """\
業叢東絲兩個為麗烏樂書買亞產親從倉們會倫蘭關興養內冊寫農減凱則別辦動區醫單賣盧衛廚號員響園國圖場堅牆聲殼
處頭夾獎奧婭學寵爾島幣師帶幫廣應開張錄總懸戲戶換數舊時術條來樹樣橋櫻歡湯沒澤漿灣燈點燭煙熱愛獵貓蝟獺瑪
現畫著礦磚筆簡籃紅約納紙紐織終紹經結給繼續繩維綠編縫羅職藝節蘆葦蒼薩藍見規覺計認讓記講許識訴詞話說請諾
讀課誰談謝貝貨費車輕較邊達過運還這進遠鄧郵鄰針釣鐘鑰鈴鉛鐺銀錯錘鎮鏡長門問鬧聞陽難靜頁頂須題顏風飛飯餃
餅馬魚鮑鳥雞鵝鵡鶴鸚鷺鷹黃齊龜"""
TO_TRADITIONAL = str.maketrans(_SIMPLIFIED.replace("\n", ""), _TRADITIONAL.replace("\n", ""))
_CURLY = str.maketrans({"'": "\u2019"})

_SHARES = {
    "en": {"utf-8": 0.74, "windows-1252": 0.26},
    "zh": {"utf-8": 0.5, "gbk": 0.19, "gb2312": 0.11, "gb18030": 0.1, "big5": 0.1},
}


@dataclass(frozen=True)
class Encoding:
    """A page's charset, the charset in the HTTP header and the one in the meta element, if any."""

    charset: str
    header: str | None
    meta: str | None


def draw_encoding(random: Random, language: str) -> Encoding:
    """A charset and its labels: about 84 % right, 12 % with one or both missing, 4 % wrong."""
    shares = _SHARES[language]
    (charset,) = random.choices(list(shares), list(shares.values()))
    lot = random.random()
    if lot < 0.84:
        return Encoding(charset, charset, charset)
    if lot < 0.90:
        return Encoding(charset, None, charset)
    if lot < 0.94:
        return Encoding(charset, charset, None)
    if lot < 0.96:
        return Encoding(charset, None, None)
    wrong = {"windows-1252": "iso-8859-1", "gbk": "gb2312", "gb18030": "gb2312"}
    return Encoding(charset, wrong.get(charset, charset), None)


def typeset(text: str, charset: str) -> str:
    """`text` as a page in `charset` would have it: traditional in Big5, curly in windows-1252."""
    if charset == "big5":
        return text.translate(TO_TRADITIONAL)
    if charset == "windows-1252":
        return text.translate(_CURLY)
    return text


def encodable(text: str, charset: str) -> bool:
    """Whether every character has a code in `charset`."""
    try:
        text.encode(charset)
    except UnicodeEncodeError:
        return False
    return True
