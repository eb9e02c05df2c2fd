"""The vocabulary of the world: what its people and places are called, in English and Chinese."""

from __future__ import annotations

Name = dict[str, str]
"""Language -> the name in it."""


def _names(table: str) -> list[Name]:
    rows = [row.rsplit(" ", 1) for row in table.replace("\n", "|").split("|")]
    return [{"en": english, "zh": chinese} for english, chinese in rows]


SURNAMES = _names(
    """\
Keller 凯勒|Marsh 马什|Novak 诺瓦克|Stone 斯通|Rivera 里维拉|Lindqvist 林奎斯特
Okafor 奥卡福|Brandt 布兰特|Moreau 莫罗|Hale 黑尔|Petrov 彼得罗夫|Sato 佐藤
Duarte 杜阿尔特|Fisher 费舍尔|Vogel 福格尔|Costa 科斯塔"""
)
CITIES = _names(
    """\
Veldon 维尔登|Marisk 马里斯克|Oluna 奥卢纳|Tarrow 塔罗|Brenfield 布伦菲尔德
Casmere 卡斯米尔|Dunhollow 邓霍洛|Estria 埃斯特里亚|Fenwick 芬威克|Galdor 加尔多
Harmont 哈蒙特|Isenport 伊森港|Jorvale 约瓦尔|Kestrel Bay 红隼湾|Lorvik 洛维克
Mirepool 米尔普尔|Norhaven 诺黑文|Orsk Falls 奥斯克瀑布|Pellam 佩勒姆|Quarrytown 采石镇"""
)
COUNTRIES = _names(
    """\
Arvenia 阿文尼亚|Belmora 贝尔莫拉|Corvatia 科瓦提亚|Drosland 德罗斯兰|Elundra 埃伦德拉
Fastovia 法斯托维亚"""
)
RIVERS = _names(
    """\
the Amber 琥珀河|the Bran 布兰河|the Cold Water 冷水河|the Dorn 多恩河
the Elver 埃尔弗河|the Grey 灰河|the Linden 菩提河|the Marl 马尔河|the Otter 水獭河
the Sable 黑貂河"""
)
PRODUCTS = _names(
    """\
glass 玻璃|clocks 钟表|cheese 奶酪|ships 船|paper 纸张|bells 铃铛|carpets 地毯
knives 刀具|honey 蜂蜜|bricks 砖|hats 帽子|lace 花边"""
)
JOBS = _names(
    """\
baker 面包师|teacher 教师|sailor 水手|doctor 医生|carpenter 木匠|painter 画家
farmer 农民|judge 法官|gardener 园丁|printer 印刷工|miner 矿工|pilot 飞行员|tailor 裁缝
librarian 图书管理员|cook 厨师|musician 音乐家"""
)
FOODS = _names(
    """\
bread 面包|rice 米饭|soup 汤|cherries 樱桃|fish 鱼|noodles 面条|pancakes 煎饼
mushrooms 蘑菇|plums 李子|dumplings 饺子|chestnuts 栗子|cabbage 白菜"""
)
PETS = _names(
    """\
dog 狗|cat 猫|parrot 鹦鹉|rabbit 兔子|turtle 乌龟|goat 山羊|goose 鹅|pony 小马
hamster 仓鼠|canary 金丝雀"""
)
COLOURS = _names(
    """\
red 红色|blue 蓝色|green 绿色|yellow 黄色|white 白色|black 黑色|brown 棕色|purple 紫色"""
)
HOBBIES = _names(
    """\
chess 下棋|swimming 游泳|fishing 钓鱼|singing 唱歌|dancing 跳舞|hiking 徒步|pottery 陶艺
reading 读书|skating 滑冰|weaving 编织"""
)
ANIMALS = _names(
    """\
bear 熊|fox 狐狸|owl 猫头鹰|heron 苍鹭|badger 獾|lynx 猞猁|beaver 河狸|hedgehog 刺猬
eagle 鹰|seal 海豹|wolf 狼|crane 鹤|otter 水獭|bat 蝙蝠"""
)
HOMES = _names(
    """\
caves 洞穴|hollow trees 树洞|reeds 芦苇丛|burrows 地洞|cliffs 悬崖|riverbanks 河岸
old barns 旧谷仓|pine woods 松林"""
)
FEED = _names(
    """\
berries 浆果|mice 老鼠|frogs 青蛙|insects 昆虫|roots 树根|small fish 小鱼|seeds 种子
bark 树皮"""
)
