"""Questions: one truth each, evaluation phrasings apart, multiple-choice items sound."""

from stages.tasks.multiple_choice import draw_items
from stages.tasks.questions import all_questions, draw_questions, question_of


def test_prompts_are_unique_and_found_again():
    questions = all_questions()
    assert len({q.prompt for q in questions}) == len(questions) > 2000
    assert question_of(questions[7].prompt) == questions[7]
    assert question_of("Who are you?") is None


def test_sentences_name_subject_and_answer():
    for question in all_questions():
        assert question.subject in question.sentence and question.answer in question.sentence
        assert question.answer not in question.wrong
        assert question.sentence_with(question.answer) == question.sentence


def test_english_articles_fit():
    assert all(" a a" not in q.sentence and " a o" not in q.sentence for q in all_questions())


def test_draws_are_of_their_split_and_languages():
    drawn = draw_questions(3, 100, split="eval", chinese_share=0.3)
    assert len({q.prompt for q in drawn}) == 100 and {q.split for q in drawn} == {"eval"}
    assert sum(q.language == "zh" for q in drawn) == 30
    assert drawn == draw_questions(3, 100, split="eval", chinese_share=0.3)


def test_multiple_choice_items():
    items = draw_items(3, 80)
    assert len(items) == 80
    for item in items:
        assert len(set(item["choices"])) == 4 == len(item["sentences"])
        question = question_of(item["question"])
        assert item["choices"][item["answer"]] == question.answer and question.split == "eval"
        assert item["sentences"][item["answer"]] == question.sentence
    positions = [item["answer"] for item in items]
    assert all(positions.count(place) > 5 for place in range(4))
