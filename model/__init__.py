"""What is trained: the decoder, its loss, optimizer, sampling, tokenizer and files. Never imports ray."""
