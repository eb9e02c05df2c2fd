"""The plain words problems are made of: common nouns and first names, in English and Chinese."""

from __future__ import annotations


def _rows(table: str) -> list[str]:
    return table.replace("\n", "|").split("|")


_NOUNS = """\
river 河流|stone 石头|cloud 云|garden 花园|window 窗户|bridge 桥|lamp 灯|basket 篮子
forest 森林|candle 蜡烛|mirror 镜子|ladder 梯子|island 岛|market 市场|hammer 锤子
pillow 枕头|silver 银|winter 冬天|summer 夏天|morning 早晨|letter 信|button 纽扣
carpet 地毯|pencil 铅笔|bottle 瓶子|ticket 票|village 村庄|station 车站|kitchen 厨房
mountain 山|paper 纸|music 音乐|orange 橙子|butter 黄油|castle 城堡|feather 羽毛
needle 针|wagon 马车|rope 绳子|drum 鼓"""

NOUNS: list[dict[str, str]] = [
    dict(zip(("en", "zh"), pair.split(), strict=True)) for pair in _rows(_NOUNS)
]

_THINGS = """\
apple apples 苹果|book books 本子|coin coins 硬币|egg eggs 鸡蛋|shell shells 贝壳
pear pears 梨|card cards 卡片|nut nuts 坚果|cup cups 杯子|stamp stamps 邮票
key keys 钥匙|bean beans 豆子"""

THINGS: list[dict[str, str]] = [
    dict(zip(("singular", "plural", "zh"), row.split(), strict=True)) for row in _rows(_THINGS)
]

_PEOPLE = """\
Anna 安娜|Boris 鲍里斯|Clara 克拉拉|David 大卫|Emma 艾玛|Felix 费利克斯|Grace 格蕾丝
Hugo 雨果|Irene 艾琳|Jonas 约纳斯|Karin 卡琳|Leo 利奥|Maria 玛丽亚|Nora 诺拉
Oscar 奥斯卡|Paula 保拉|Quentin 昆廷|Rosa 罗莎|Simon 西蒙|Teresa 特蕾莎
Ulrich 乌尔里希|Vera 薇拉|Walter 沃尔特|Yusuf 优素福|Zoe 佐伊|Albert 阿尔贝特
Bella 贝拉|Conrad 康拉德|Daria 达里娅|Edgar 埃德加|Fiona 菲奥娜|Gustav 古斯塔夫
Helena 海伦娜|Ivan 伊万|Julia 朱莉娅|Kaspar 卡斯帕|Lydia 莉迪亚|Martin 马丁
Nadia 纳迪娅|Otto 奥托"""

PEOPLE_NAMES: list[dict[str, str]] = [
    dict(zip(("en", "zh"), pair.split(), strict=True)) for pair in _rows(_PEOPLE)
]
"""First names; the world's people bear each of them once."""
