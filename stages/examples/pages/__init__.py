"""The texts of the sample crawl's pages: articles, stories, lessons, questions, talks."""
