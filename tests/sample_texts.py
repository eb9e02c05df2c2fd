"""A good page in Chinese and one in English, by hand."""

from __future__ import annotations

GOOD_CHINESE = (
    "北京的秋天是一年中最美的季节。天空很高，也很蓝，风轻轻地吹过树叶，发出沙沙的声音。\n"
    "人们喜欢在周末去香山看红叶，也有不少家庭带着孩子去公园放风筝。路边的小店卖着热腾腾的烤红薯，"
    "香气飘得很远。\n"
    "我小时候住在胡同里，邻居们常常坐在门口聊天。老王会讲他年轻时候的故事，我们都听得入了神。"
    "那时候生活简单，但是大家都很快乐。\n"
    "现在城市变化很大，高楼越来越多，交通也更加方便了。不过每当秋天到来，我还是会想起从前的日子。"
)
GOOD_ENGLISH = (
    "The old harbour has been the heart of the town for more than three hundred years. Fishermen "
    "leave before sunrise and come back with their boats full of herring and mackerel.\n"
    "In the summer visitors walk along the pier and buy ice cream from the small shop at its end. "
    "Children try to catch crabs with a piece of string, and some of them even succeed.\n"
    "When the storms of autumn arrive, the boats stay in the harbour. People mend their nets, tell "
    "stories, and wait for better weather. That is how it has always been, and they like it."
)
