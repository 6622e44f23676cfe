"""What makes a fine-tune: conversations, recipes, pretraining, QLoRA, the Hugging Face engine."""
