"""What is trained: decoder, loss, optimizer, sampling, tokenizer, files. Never imports ray."""
